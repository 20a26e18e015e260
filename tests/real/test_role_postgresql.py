# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The role postgresql on this machine: check, apply, check, apply; then psql and openssl look at what was made."""

from __future__ import annotations

import json
import re
import sys
import typing as t

import pytest

from ansible_collections.hms.postgres.tests.real import playbooks
from ansible_collections.hms.postgres.tests.real.lab import VERSION, Instance, Lab, run, until

# Ansible runs four times before the first test
pytestmark = pytest.mark.timeout(600)

ENTRIES = ("preflight", "instance", "configure", "service", "objects")
SECRET = "not-to-be-seen-{}"
PLAY = """
- name: The role, without installing packages
  hosts: all
  gather_facts: false
  tasks:
    - name: Call the entry point
      ansible.builtin.include_role:
        name: hms.postgres.postgresql
        tasks_from: "{{ entry }}"
      loop: "{{ entries }}"
      loop_control:
        loop_var: entry
"""
TLS_VERSION = "SELECT version FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
_RECAP = re.compile(r"ok=\d+ +changed=(?P<changed>\d+) +unreachable=0 +failed=(?P<failed>\d+)")


class Site:
    """An inventory of one host, which is this machine."""

    def __init__(self, lab: Lab) -> None:
        self.instance: Instance = lab.plan()
        self.folder = lab.folder / "site"
        self.folder.mkdir()
        self.variables: dict[str, t.Any] = {
            "ansible_connection": "local",
            "ansible_python_interpreter": sys.executable,
            "hms_environment": "development",
            "hms_cluster": "hospital",
            "hms_address": "127.0.0.1",
            "hms_config_dir": f"{self.folder}/etc",
            "postgresql_version": VERSION,
            "postgresql_instance": self.instance.name,
            "postgresql_port": self.instance.port,
            "postgresql_data_dir": str(self.instance.data),
            "postgresql_socket_dir": str(self.instance.sockets),
            "postgresql_start_conf": "manual",
            "postgresql_memory_mb": 300,
            "postgresql_max_connections": 40,
            "postgresql_settings": {"fsync": False},
            "postgresql_tls_ca_dir": f"{self.folder}/secrets",
            "postgresql_hba_extra": [
                {
                    "type": "hostssl",
                    "databases": ["hospital"],
                    "users": ["hospital_readonly"],
                    "addresses": ["10.1.0.0/16"],
                    "method": "scram-sha-256",
                }
            ],
        }
        for role in ("owner", "app", "readonly", "monitor", "replication", "pgbouncer"):
            self.variables[f"postgresql_{role}_password"] = SECRET.format(role)

    def play(self, *options: str, entries: t.Sequence[str] = ENTRIES, rc: int = 0, **changes: t.Any) -> str:
        """Run the role, or some of its entry points; what it printed."""
        inventory = {"all": {"hosts": {"db1": {**self.variables, "entries": entries, **changes}}}}
        (self.folder / "hosts.json").write_text(json.dumps(inventory))
        (self.folder / "play.yml").write_text(PLAY)
        printed = playbooks.play(self.folder / "hosts.json", self.folder / "play.yml", *options, rc=rc, seconds=400)
        assert "not-to-be-seen" not in printed, "a password was printed"
        assert "PRIVATE KEY" not in printed, "a key was printed"
        return printed

    def changed(self, *options: str, entries: t.Sequence[str] = ENTRIES, **changes: t.Any) -> int:
        """Run the role; how many tasks changed something."""
        match = _RECAP.search(self.play(*options, entries=entries, **changes))
        assert match
        return int(match["changed"])

    def login(self, user: str, **more: str) -> str:
        """What psql says when a role logs in from here."""
        known = {"dbname": "hospital", "password": SECRET.format(user.rpartition("_")[2]), "sslmode": "verify-full"}
        known["sslrootcert"] = f"{self.folder}/etc/tls/ca.crt"
        return self.instance.login(self.instance.conninfo(user, **{**known, **more}), TLS_VERSION)


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> Site:
    """A host on which the role ran: planned, done, planned again, done again."""
    made = Site(module_lab)
    assert made.changed("--check", "--diff") > 0
    assert not made.instance.config.exists()
    assert not (made.folder / "secrets").exists()
    assert made.changed("--diff", "-vv") > 0
    assert made.changed("--check", "--diff") == 0
    assert made.changed() == 0
    return made


def test_logins_over_tls_with_the_certificate_checked(site: Site) -> None:
    assert site.login("hospital_app") in ("TLSv1.2", "TLSv1.3")
    assert site.login("hospital_app", host="localhost") in ("TLSv1.2", "TLSv1.3")
    assert site.login("hms_monitor", dbname="postgres") in ("TLSv1.2", "TLSv1.3")


@pytest.mark.parametrize(
    ("user", "more", "words"),
    [
        ("hospital_app", {"sslmode": "disable"}, "pg_hba.conf rejects connection"),
        ("hospital_app", {"password": "wrong"}, "password authentication failed"),
        ("hospital_app", {"dbname": "postgres"}, "pg_hba.conf rejects connection"),
        ("hms_replication", {"dbname": "hospital"}, "pg_hba.conf rejects connection"),
        ("postgres", {"dbname": "postgres"}, "pg_hba.conf rejects connection"),
    ],
)
def test_logins_that_are_refused(site: Site, user: str, more: dict[str, str], words: str) -> None:
    assert words in site.login(user, **more)


def test_settings_that_standbys_and_failover_need(site: Site) -> None:
    wanted = {
        "wal_level": "replica",
        "wal_log_hints": "on",
        "track_commit_timestamp": "on",
        "hot_standby": "on",
        "password_encryption": "scram-sha-256",
        "data_checksums": "on",
        "log_min_error_statement": "panic",
        "shared_buffers": "75MB",
        "max_connections": "40",
        "fsync": "off",
        "synchronous_standby_names": "",
    }
    for name, value in wanted.items():
        assert site.instance.sql(f"SHOW {name}") == value, name
    assert site.instance.sql("SELECT count(*) FROM pg_settings WHERE pending_restart") == "0"
    assert site.instance.sql("SELECT count(*) FROM pg_file_settings WHERE error IS NOT NULL") == "0"
    assert site.instance.sql("SELECT count(*) FROM pg_hba_file_rules WHERE error IS NOT NULL") == "0"


def test_files_are_closed_to_others(site: Site) -> None:
    paths = {
        site.instance.config / "pg_hba.conf": "640",
        site.instance.config / "conf.d" / "50-hms.conf": "640",
        site.folder / "etc" / "tls" / "server.key": "600",
        site.folder / "secrets": "700",
        site.folder / "secrets" / "ca.key": "600",
    }
    for path, mode in paths.items():
        assert run("stat", "-c", "%a", str(path)).strip() == mode, path


def test_errors_do_not_bring_rows_into_the_log(site: Site) -> None:
    statement = "CREATE TABLE t (name text UNIQUE); INSERT INTO t VALUES ('Jane Roe'), ('Jane Roe')"
    conninfo = site.instance.conninfo("hospital_owner", dbname="hospital", password=SECRET.format("owner"))
    assert "Jane Roe" in site.instance.login(conninfo, statement), "the client is told"
    log = site.instance.log
    until(lambda: "duplicate key value" in log.read_text(errors="replace"), "the log says that it happened")
    assert "Jane Roe" not in log.read_text(errors="replace")


def test_a_change_is_loaded_without_a_restart(site: Site) -> None:
    pid = site.instance.pid
    settings = {"fsync": False, "work_mem": "9MB", "max_wal_senders": 12}
    load = ("configure", "service")
    printed = site.play(entries=load, postgresql_settings=settings)
    assert "waits for a restart to use new values of: max_wal_senders" in printed
    assert site.instance.sql("SHOW work_mem") == "9MB"
    assert site.instance.pid == pid
    assert site.changed(entries=load, postgresql_settings=settings, postgresql_restart="allowed") == 1
    assert site.instance.sql("SHOW max_wal_senders") == "12"
    assert site.instance.pid != pid
    site.play(entries=load, postgresql_restart="allowed")


@pytest.mark.parametrize(
    ("entry", "changes", "words"),
    [
        ("configure", {"postgresql_settings": {"work_mem": "lots"}}, "failed to validate"),
        ("preflight", {"postgresql_hba_extra": [{"type": "host", "method": "trust"}]}, "'trust' is not a method"),
        ("objects", {"postgresql_app_password": "short"}, "hospital_app"),
        ("instance", {"postgresql_data_dir": "/var/lib/elsewhere"}, "The instance {title} exists and has its data in"),
        (
            "preflight",
            {"postgresql_instance": "hmstest.new", "postgresql_data_dir": "/etc"},
            "isn't empty and isn't a PostgreSQL",
        ),
        ("preflight", {"hms_environment": "production"}, "Set postgresql_tls to files"),
        ("configure", {"postgresql_tls": "files", "postgresql_tls_dir": "/nonexistent"}, "Missing on the host"),
    ],
)
def test_bad_input_gets_one_clear_message(site: Site, entry: str, changes: dict[str, t.Any], words: str) -> None:
    text = (site.instance.config / "conf.d" / "50-hms.conf").read_text()
    printed = " ".join(site.play(entries=(entry,), rc=2, **changes).split())
    assert words.format(title=f"{VERSION}/{site.instance.name}") in printed
    assert (site.instance.config / "conf.d" / "50-hms.conf").read_text() == text
