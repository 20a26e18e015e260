# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Swaps on a single server without any bouncer: what stands in a rename's way, and the task that a playbook runs."""

from __future__ import annotations

import json
import pathlib
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams, connect
from ansible_collections.hms.postgres.plugins.module_utils._tools import database_rename
from ansible_collections.hms.postgres.tests.real import playbooks
from ansible_collections.hms.postgres.tests.real.lab import Lab
from ansible_collections.hms.postgres.tests.real.swap_site import LIVE, SCRATCH, SwapSite, direct


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> t.Iterator[SwapSite]:
    """One database host, prepared transactions and logical slots allowed."""
    made = SwapSite(module_lab, databases=1, bouncers=0)
    try:
        instance = made.primary().instance
        instance.set(wal_level="logical", max_prepared_transactions="5")
        instance.stop()
        instance.start()
        yield made
    finally:
        made.close()


@pytest.fixture(autouse=True)
def nothing_is_left(site: SwapSite) -> t.Iterator[None]:
    """What a test made is gone."""
    yield
    site.agents_end()
    for name in site.oids():
        if name != LIVE:
            site.drop(name)


def refused(site: SwapSite, **wishes: t.Any) -> Refused:
    """The refusal; nothing has changed."""
    before = site.catalog()
    with pytest.raises(Refused) as caught:
        site.swap(**wishes)
    assert site.catalog() == before
    assert caught.value.state == "Nothing was touched."
    return caught.value


def test_without_bouncers_nobody_is_held(site: SwapSite) -> None:
    old, new = site.oid(LIVE), site.make()
    with direct(site.primary()) as client:
        report = site.swap()
        with pytest.raises(psycopg.OperationalError):
            client.execute("SELECT 1")
    assert site.oid(LIVE) == new
    assert report.record is not None
    assert report.record["outcome"]["status"] == "done"
    assert not [step for step in report.record["steps"] if step["id"] == "hold_pools"]
    assert not site.swap().changed
    assert site.swap(state="rolled_back").changed
    assert site.oid(LIVE) == old


def test_a_prepared_transaction_is_named_before_anything_is_touched(site: SwapSite) -> None:
    site.make()
    site.inside(LIVE, "BEGIN; INSERT INTO ledger VALUES ('prepared', 1); PREPARE TRANSACTION 'billing ''17'")
    try:
        error = refused(site, force=("prepared_transactions",))
        assert error.reason == "prepared_transactions"
        assert 'hospital has prepared transactions ("billing \'17")' in error.message
        assert "COMMIT PREPARED or ROLLBACK PREPARED each, connected to that database" in error.message
        assert "Override" not in error.message, "the server itself refuses it"
    finally:
        site.inside(LIVE, "ROLLBACK PREPARED 'billing ''17'")
    assert site.swap().changed


def test_a_logical_slot_is_named_and_can_be_accepted(site: SwapSite) -> None:
    new = site.make()
    site.inside(LIVE, "SELECT pg_create_logical_replication_slot('feed', 'test_decoding')")
    try:
        error = refused(site)
        assert "Logical slots belong to hospital (feed)" in error.message
        assert "Override: force=logical_slots." in error.message
        assert site.swap(force=("logical_slots",)).changed
        assert site.oid(LIVE) == new
    finally:
        site.ask("SELECT pg_drop_replication_slot('feed')")


def test_a_subscription_is_named(site: SwapSite) -> None:
    site.make()
    create = "CREATE SUBSCRIPTION feed CONNECTION 'dbname=nowhere' PUBLICATION p WITH (connect = false)"
    site.inside(LIVE, create)
    try:
        assert "Subscriptions belong to hospital (feed)" in refused(site).message
    finally:
        site.inside(LIVE, "ALTER SUBSCRIPTION feed SET (slot_name = NONE)")
        site.inside(LIVE, "DROP SUBSCRIPTION feed")


def test_templates_and_closed_databases_are_named(site: SwapSite) -> None:
    site.make()
    site.ask(f"ALTER DATABASE {SCRATCH} IS_TEMPLATE true")
    assert "hospital_restore is marked as a template" in refused(site).message
    site.ask(f"ALTER DATABASE {SCRATCH} IS_TEMPLATE false")
    site.ask(f"ALTER DATABASE {SCRATCH} ALLOW_CONNECTIONS false")
    assert refused(site).reason == "scratch_closed"


def test_who_is_still_in_the_scratch_database_is_named(site: SwapSite) -> None:
    site.make()
    with direct(site.primary(), SCRATCH):
        assert "Somebody is connected to hospital_restore: pid" in refused(site).message


def test_a_dump_is_not_cut_by_the_way(site: SwapSite) -> None:
    new = site.make()
    with direct(site.primary(), name="pg_dump") as dump:
        error = refused(site)
        assert error.reason == "backup_running"
        assert dump.execute("SELECT 1").fetchone() == (1,)
        assert site.swap(force=("backup_running",)).changed
    assert site.oid(LIVE) == new


def test_the_longest_name_is_cut_so_that_the_stamp_is_whole(site: SwapSite) -> None:
    long = "ö" * 31
    old, new = site.make(long), site.make("other")
    assert site.swap(database=long, scratch="other").changed
    kept = next(name for name, oid in site.oids().items() if oid == old)
    assert len(kept.encode()) <= 63
    assert kept.startswith("ö" * 19 + "_before_2")
    assert site.oid(long) == new
    assert site.swap(database=long, state="rolled_back").changed
    assert site.oid(long) == old


def local(site: SwapSite) -> ConnectionParams:
    return ConnectionParams(host="127.0.0.1", port=site.primary().port, user="postgres", dbname="postgres")


def test_the_rename_itself_takes_everything_back_on_any_error(site: SwapSite) -> None:
    old, new = site.oid(LIVE), site.make()
    before = site.catalog()
    session = connect(local(site))
    work = database_rename.statements(
        live=LIVE, scratch=SCRATCH, keep="kept", operation="20261122T154500Z-swap-3fa9", open_scratch=True
    )
    try:
        with pytest.raises(HmsError, match="would not be the database that was looked at"):
            database_rename.rename(session, work, oids={LIVE: old, "kept": new})
        assert site.catalog() == before
        with pytest.raises(HmsError, match='database "nowhere" does not exist'):
            database_rename.rename(session, [*work, "ALTER DATABASE nowhere RENAME TO x"], oids={LIVE: new})
        assert site.catalog() == before
        database_rename.rename(session, work, oids={LIVE: new, "kept": old})
        found = {each.name: each for each in database_rename.databases(session)}
    finally:
        session.close()
    assert (found[LIVE].oid, found[LIVE].mark_was) == (new, SCRATCH)
    assert (found["kept"].oid, found["kept"].mark_was) == (old, LIVE)
    assert found["kept"].mark_operation == "20261122T154500Z-swap-3fa9"
    site.swap(scratch="kept", keep_as=SCRATCH)


PLAYBOOK = """
- name: Lines
  hosts: db1
  gather_facts: false
  tasks:
    - name: Turn this host's connection into a line for its agent
      hms.postgres.agent_line:
        config_directory: {config}
      register: hms_agent_line
- name: Swap
  hosts: localhost
  gather_facts: false
  tasks:
    - name: Swap the databases
      hms.postgres.pg_database_swap:
        cluster: hospital
        environment: staging
        databases: [db1]
        bouncers: []
        records_directory: {records}
        database: hospital
        scratch: hospital_restore
        confirm: hospital
        state: "{{{{ state | default('swapped') }}}}"
      register: done
    - name: Keep what it said
      ansible.builtin.copy:
        content: "{{{{ done | to_json }}}}"
        dest: {result}
        mode: "0600"
      check_mode: false
"""


def test_the_task_that_a_playbook_runs(site: SwapSite, tmp_path: pathlib.Path) -> None:
    old, new = site.oid(LIVE), site.make()
    result = tmp_path / "result.json"
    (tmp_path / "play.yml").write_text(
        PLAYBOOK.format(config=site.databases["db1"].config, records=site.records, result=result)
    )
    (tmp_path / "hosts.yml").write_text(
        "all: {hosts: {db1: {ansible_connection: local, ansible_python_interpreter: /usr/bin/python3}}}\n"
    )

    def play(*more: str) -> dict[str, t.Any]:
        playbooks.play(tmp_path / "hosts.yml", tmp_path / "play.yml", *more)
        found: dict[str, t.Any] = json.loads(result.read_text())
        return found

    before = site.catalog()
    planned = play("--check", "--diff")
    assert planned["changed"]
    assert "rename hospital to hospital_before_" in planned["diff"]["after"]
    assert site.catalog() == before
    done = play()
    assert done["changed"]
    assert site.oid(LIVE) == new
    assert site.oids()[done["kept_as"]] == old
    assert done["oid"] == new
    assert done["msg"].startswith("hospital is now what hospital_restore was")
    assert pathlib.Path(done["record_path"]).with_suffix(".html").exists()
    again = play()
    assert not again["changed"]
    assert again["kept_as"] == ""
    assert again["oid"] == new
