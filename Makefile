# SPDX-FileCopyrightText: 2026 the hms.postgres authors
# SPDX-License-Identifier: GPL-3.0-or-later
#
# Works on a clean Debian 12 or 13, as root or with sudo: each target installs what it needs and is missing.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

# The Python that .venv is made from: Debian's own, unless told otherwise (make PYTHON=python3.12 …).
PYTHON ?= /usr/bin/python3
# How many gates run at a time.
JOBS ?= 2
# How many files of tests/real: they wait for servers half of their time.
REAL_JOBS ?= 3
# Passed to pytest and to ansible-playbook: make unit PYTEST_ARGS='-k plan', make demo ANSIBLE_ARGS=-v
PYTEST_ARGS ?=
ANSIBLE_ARGS ?=
BENCH_ARGS ?=

VENV := .venv
BIN := $(CURDIR)/$(VENV)/bin
CACHE := $(CURDIR)/.cache
STAGE := $(CACHE)/stage
COLLECTION := $(STAGE)/ansible_collections/hms/postgres
APT := tests/gates/apt_install.sh
POSTGRES_PACKAGES := postgresql postgresql-client pgbouncer python3-psycopg openssl
BACKUP_PACKAGES := pgbackrest gnupg python3-gnupg python3-boto3 zstd lz4 pigz gzip util-linux
# For the application that restore drills ask.
DJANGO_PACKAGES := python3-django python3-psycopg2

export PATH := $(BIN):$(PATH)
# Ansible insists on UTF-8; a bare machine has no other locale than this one.
export LC_ALL := C.UTF-8
export PYTHONDONTWRITEBYTECODE := 1
export PIP_DISABLE_PIP_VERSION_CHECK := 1
# An index that does not answer at once may do so a moment later.
export PIP_DEFAULT_TIMEOUT := 60
export PIP_RETRIES := 10

LINTS := lint-sanity lint-ansible lint-galaxy lint-docs lint-types lint-python lint-yaml lint-changelog
# Every target of its own accord finishes; one that fails does not hide what another has to say.
TOGETHER := $(MAKE) --keep-going --jobs=$(JOBS) --output-sync=target

.PHONY: help
help: ## show this list
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  %-14s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

##-- environment

.PHONY: venv
venv: $(VENV)/dev.stamp ## make .venv with everything pinned in requirements-dev.txt

# What running playbooks needs, and no more: `make demo` on a fresh machine waits for nothing else.
$(VENV)/controller.stamp: requirements.txt
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || $(APT) python3 python3-venv
	@echo "Making $(VENV) with $$($(PYTHON) --version)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --no-input --requirement requirements.txt
	@touch $@

$(VENV)/dev.stamp: requirements-dev.txt $(VENV)/controller.stamp
	@echo "Installing requirements-dev.txt into $(VENV)"
	@$(BIN)/pip install --quiet --no-input --requirement requirements-dev.txt
	@$(BIN)/pip check --quiet
	@touch $@

# Patroni, which the benchmark measures itself against, keeps out of .venv.
$(VENV)-bench/stamp: requirements-bench.txt $(VENV)/controller.stamp
	@$(PYTHON) -m venv --clear $(VENV)-bench
	@$(VENV)-bench/bin/pip install --quiet --no-input --requirement requirements-bench.txt
	@touch $@

# A copy at …/ansible_collections/hms/postgres, where Ansible's tools want a collection to lie.
.PHONY: stage
stage: $(VENV)/dev.stamp
	@command -v git >/dev/null || $(APT) git
	@$(BIN)/python tests/gates/stage.py . $(STAGE) >/dev/null

##-- gates

.PHONY: lint
lint: ## run every linter: ruff, mypy, vermin, yamllint, ansible-lint, sanity, docs, changelog, galaxy-importer
	@$(TOGETHER) $(LINTS)

.PHONY: lint-python
lint-python: $(VENV)/dev.stamp
	@echo "== ruff, and Python 3.9 on the target side"
	@ruff check --quiet --output-format=concise .
	@ruff format --check --quiet . || { ruff format --check --output-format=concise .; echo "run: make format"; exit 1; }
	@vermin --quiet --target=3.9- --no-tips --violations plugins/module_utils plugins/modules

.PHONY: lint-types
lint-types: $(VENV)/dev.stamp
	@echo "== mypy --strict"
	@mypy --no-error-summary -p ansible_collections.hms.postgres.plugins -p ansible_collections.hms.postgres.tests

.PHONY: lint-yaml
lint-yaml: $(VENV)/dev.stamp
	@echo "== yamllint"
	@yamllint --strict .

.PHONY: lint-ansible
lint-ansible: stage
	@echo "== ansible-lint, profile production"
	@cd $(COLLECTION) && ANSIBLE_COLLECTIONS_PATH=$(STAGE) ansible-lint --nocolor -q

# ansible-test keeps its virtual environments below HOME. It gets one of its own, with a stand-in for the
# script that it would download to make them; the first run takes half a minute longer.
.PHONY: lint-sanity
lint-sanity: stage
	@echo "== ansible-test sanity"
	@command -v shellcheck >/dev/null || $(APT) shellcheck
	@mkdir -p $(CACHE)/home/.ansible/test/cache
	@cp tests/gates/get_pip.py $(CACHE)/home/.ansible/test/cache/get_pip_24_2.py
	@cd $(COLLECTION) && HOME=$(CACHE)/home ansible-test sanity --color no \
	    --python "$$(python -c 'import sys; print("%d.%d" % sys.version_info[:2])')" >$(CACHE)/sanity.log 2>&1 \
	    || { grep -Ev '^( |Running|Installing|Using cached|Collecting|Successfully|WARNING: Using locale)' $(CACHE)/sanity.log; exit 1; }

.PHONY: lint-docs
lint-docs: stage
	@echo "== antsibull-docs"
	@cd $(COLLECTION) && ANSIBLE_COLLECTIONS_PATH=$(STAGE) antsibull-docs lint-collection-docs \
	    --plugin-docs --validate-collection-refs self .

.PHONY: lint-changelog
lint-changelog: stage
	@echo "== antsibull-changelog"
	@cd $(COLLECTION) && antsibull-changelog lint && antsibull-changelog lint-changelog-yaml --strict changelogs/changelog.yaml

.PHONY: lint-galaxy
lint-galaxy: stage
	@echo "== collection build and galaxy-importer"
	@python tests/gates/galaxy_build.py . $(COLLECTION) $(CACHE)/galaxy

.PHONY: format
format: $(VENV)/dev.stamp ## let ruff sort imports and format the Python files
	@ruff check --quiet --select I --fix . && ruff format .

##-- tests

# What a test needs is installed before it runs: one that skips itself has failed.
PYTEST := env PYTHONPATH=$(CURDIR)/tests/gates $(BIN)/python -m pytest -p no_skips
# What failed is kept, and told last: many thousand lines of others may come after it.
KEEPING = $(PYTHON) tests/gates/told_last.py run $@ --
# The tests start servers under the account of postgres, as the roles do.
AS_ROOT := $(if $(filter 0,$(shell id -u)),,sudo --preserve-env=CI,LC_ALL,PYTHONDONTWRITEBYTECODE)

.PHONY: unit
unit: $(VENV)/dev.stamp ## run the unit tests (PYTEST_ARGS='-k plan')
	@echo "== unit tests"
	@$(PYTEST) --numprocesses=$(JOBS) tests/unit $(PYTEST_ARGS)

.PHONY: test-fast
test-fast: ## lint and unit tests together: what to run before each commit
	@$(TOGETHER) $(LINTS) unit

.PHONY: real
real: $(VENV)/dev.stamp ## run tests/real against real PostgreSQL and PgBouncer servers that the tests start and remove
	@$(APT) $(POSTGRES_PACKAGES) $(BACKUP_PACKAGES) $(DJANGO_PACKAGES)
	@echo "== tests against real servers"
	@$(KEEPING) $(AS_ROOT) $(PYTEST) --numprocesses=$(REAL_JOBS) --dist=loadfile --no-loadscope-reorder tests/real $(PYTEST_ARGS)

.PHONY: lab-default
lab-default: $(VENV)/dev.stamp ## molecule: provision virgin hosts, twice, and verify them
	@$(KEEPING) molecule test --scenario-name default

.PHONY: lab-failover
lab-failover: $(VENV)/dev.stamp ## molecule: switchover, failover and rejoin under injected faults
	@$(KEEPING) molecule test --scenario-name failover

.PHONY: lab-backup
lab-backup: $(VENV)/dev.stamp ## molecule: backups of every type to a folder and to S3, restored on another host by hand
	@$(KEEPING) molecule test --scenario-name backup

.PHONY: lab-restore
lab-restore: $(VENV)/dev.stamp ## molecule: restored on another host, swapped under load, back to a moment, drilled
	@$(KEEPING) molecule test --scenario-name restore

# There is one lab on a machine.
.PHONY: labs
labs: ## all the labs, one after the other
	@$(MAKE) lab-default
	@$(MAKE) lab-restore
	@$(MAKE) lab-backup
	@$(MAKE) lab-failover

.PHONY: test
test: ## everything that CI runs
	@rm -rf $(CACHE)/failed
	@$(MAKE) test-fast
	@$(APT) $(POSTGRES_PACKAGES) $(BACKUP_PACKAGES)
	@$(MAKE) --keep-going real labs || { $(PYTHON) tests/gates/told_last.py tell; exit 1; }
	@$(MAKE) demo-test

##-- the embedded demo

# Where sudo wants a password, Ansible asks for it once.
PLAY = $(BIN)/ansible-playbook -i inventories/demo $$([[ $$(id -u) -eq 0 ]] || sudo -n true 2>/dev/null || echo --ask-become-pass)

.PHONY: demo
demo: $(VENV)/controller.stamp ## build a site on this machine, kill its primary, fail over, print the report
	@$(PLAY) playbooks/demo.yml $(ANSIBLE_ARGS)

.PHONY: demo-restore
demo-restore: demo ## the demo, and its second act: somebody deletes what must not go, and the backup brings it back
	@$(PLAY) playbooks/demo_restore.yml $(ANSIBLE_ARGS)

.PHONY: demo-clean
demo-clean: $(VENV)/controller.stamp ## remove the demo's site from this machine
	@$(PLAY) playbooks/demo_clean.yml $(ANSIBLE_ARGS)

.PHONY: demo-test
demo-test: ## run the demo with its second act from nothing, and remove it
	@$(MAKE) demo-clean
	@$(MAKE) demo-restore || { $(MAKE) demo-clean; exit 1; }
	@$(MAKE) demo-clean

.PHONY: bench
bench: $(VENV)/dev.stamp $(VENV)-bench/stamp ## measure switchover and failover, and Patroni beside them (BENCH_ARGS=)
	@$(APT) $(POSTGRES_PACKAGES) $(BACKUP_PACKAGES) etcd-server
	@PYTHONPATH=$(CURDIR)/.collections python tests/bench $(BENCH_ARGS)

##-- release

.PHONY: build
build: stage ## build the collection's artifact into build/, judged by galaxy-importer
	@python tests/gates/galaxy_build.py . $(COLLECTION) build

.PHONY: clean
clean: ## remove everything that make made in this checkout
	@rm -rf $(VENV) $(VENV)-bench $(CACHE) build .ansible tests/output
