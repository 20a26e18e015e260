# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The list of lost transactions, against what was really committed: psql says which xid, the dossier must agree."""

from __future__ import annotations

import dataclasses
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import dossier
from ansible_collections.hms.postgres.plugins.module_utils._cluster.dossier_names import NamesFromServer
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams, connect, parse_lsn
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, Lab, until
from ansible_collections.hms.postgres.tests.real.rejoin_site import DATABASE, SETTINGS, Member


def committed(member: Member, *statements: str) -> str:
    """Commit the statements in one transaction; its xid, as the server says."""
    body = ";".join(statements)
    return member.sql(f"BEGIN; {body}; SELECT pg_current_xact_id(); COMMIT").splitlines()[-1]


@dataclasses.dataclass
class Story:
    """What was done behind the fork, by xid."""

    member: Member
    fork: str
    lost: dict[str, set[str]]
    harmless: set[str]
    undecided: str


@pytest.fixture(scope="module")
def story(module_lab: Lab) -> Story:
    """A server that does everything once behind a fork, and is then killed."""
    member = Member(module_lab.primary(**SETTINGS))
    member.instance.sql(f"CREATE DATABASE {DATABASE}")
    member.instance.sql("CREATE DATABASE other")
    member.sql("CREATE TABLE patients (id int PRIMARY KEY, name text)")
    member.sql("CREATE TABLE visits (id serial PRIMARY KEY, patient int REFERENCES patients, note text)")
    member.sql("INSERT INTO patients SELECT n, repeat('n', 100) FROM generate_series(1, 1000) n")
    member.sql("VACUUM ANALYZE")
    member.instance.sql("CHECKPOINT")
    member.sql("BEGIN; INSERT INTO patients VALUES (9001, 'before'); PREPARE TRANSACTION 'before the fork'")
    before_fork = member.sql("SELECT transaction FROM pg_prepared_xacts")
    fork = member.instance.sql("SELECT pg_current_wal_insert_lsn()")
    lost = {
        committed(member, "INSERT INTO patients VALUES (2001, 'one')"): {"public.patients"},
        committed(
            member,
            "INSERT INTO patients VALUES (2002, 'two')",
            "SAVEPOINT s",
            "INSERT INTO visits (id, patient) VALUES (1, 2002)",
            "SAVEPOINT u",
            "CREATE TABLE never ()",
            "ROLLBACK TO u",
        ): {"public.patients", "public.visits"},
        committed(member, "UPDATE patients SET name = repeat('long', 5000) WHERE id = 1"): {"public.patients"},
        committed(member, "DELETE FROM patients WHERE id = 900"): {"public.patients"},
    }
    member.sql("COMMIT PREPARED 'before the fork'")
    lost[before_fork] = {"public.patients"}
    member.sql("BEGIN; INSERT INTO patients VALUES (9002, 'prepared'); PREPARE TRANSACTION 'a: b, \"c\"; d'")
    lost[member.sql("SELECT transaction FROM pg_prepared_xacts")] = {"public.patients"}
    member.sql("COMMIT PREPARED 'a: b, \"c\"; d'")
    member.sql("BEGIN; INSERT INTO patients VALUES (9003, 'rolled back'); PREPARE TRANSACTION 'gone'")
    member.sql("ROLLBACK PREPARED 'gone'")
    member.sql("BEGIN; INSERT INTO patients VALUES (9004, 'never'); ROLLBACK")
    harmless = {
        committed(member, "SELECT * FROM patients WHERE id = 5 FOR UPDATE"),
        committed(member, "ANALYZE patients"),
        committed(member, "SELECT 1"),
    }
    other = member.instance.sql("CREATE TABLE elsewhere (id int); SELECT 1", dbname="other")
    assert other == "1"
    member.instance.sql("CHECKPOINT")
    member.sql("BEGIN; INSERT INTO patients VALUES (9005, 'undecided'); PREPARE TRANSACTION 'open'")
    undecided = member.sql("SELECT transaction FROM pg_prepared_xacts")
    member.kill()
    return Story(member, fork, lost, harmless, undecided)


def losses(member: Member, fork: str, names: t.Any = None) -> dossier.Losses:
    """What the collection says."""
    return dossier.losses_since(
        data_directory=str(member.instance.data),
        bin_directory=str(BINARIES),
        timeline=1,
        lsn=parse_lsn(fork),
        runner=SystemRunner(),
        os_user=OS_USER,
        names=names,
    )


def test_every_lost_transaction_is_listed_and_no_other(story: Story) -> None:
    found = losses(story.member, story.fork)
    listed = {str(item.xid) for item in found.transactions}
    elsewhere = listed - set(story.lost)
    assert set(story.lost) <= listed
    assert len(elsewhere) == 1, "the table made in the other database"
    assert found.count == len(listed) == len(found.transactions)
    assert not listed & story.harmless
    assert found.without_data >= 2
    assert [str(item.xid) for item in found.undecided] == [story.undecided]
    assert found.known
    assert found.any_record


def test_times_are_utc_and_in_range(story: Story) -> None:
    found = losses(story.member, story.fork)
    times = [item.committed_at for item in found.transactions]
    assert all(text.endswith("Z") and text[10] == "T" and len(text) == 27 for text in times)
    assert (found.first_commit_at, found.last_commit_at) == (min(times), max(times))


def test_without_a_server_files_stand_for_names(story: Story) -> None:
    found = losses(story.member, story.fork)
    assert {name.split(" ")[0] for item in found.transactions for name in item.relations} == {"file"}


def test_a_bit_flip_in_the_middle_makes_the_list_unknown(story: Story, tmp_path: pathlib.Path) -> None:
    """A damaged log must not pass for one that ends there."""
    wal = story.member.instance.data / "pg_wal"
    first = next(path for path in sorted(wal.iterdir()) if path.name.startswith("00000001"))
    position = parse_lsn(story.fork) % (16 << 20) + 300
    copy = tmp_path / first.name
    copy.write_bytes(first.read_bytes())
    with first.open("r+b") as target:
        target.seek(position)
        byte = target.read(1)
        target.seek(position)
        target.write(bytes([byte[0] ^ 0xFF]))
    try:
        found = losses(story.member, story.fork)
    finally:
        with first.open("r+b") as target:
            target.write(copy.read_bytes())
    assert not found.known
    assert "incomplete" in found.basis
    assert losses(story.member, story.fork).known


def test_a_log_that_is_gone_is_said_to_be(story: Story) -> None:
    wal = story.member.instance.data / "pg_wal"
    aside = wal.with_name("pg_wal.aside")
    files = [path for path in wal.iterdir() if path.is_file()]
    aside.mkdir()
    for path in files:
        path.rename(aside / path.name)
    try:
        with pytest.raises(HmsError) as caught:
            losses(story.member, story.fork)
    finally:
        for path in aside.iterdir():
            path.rename(wal / path.name)
        aside.rmdir()
    assert caught.value.reason == "wal_missing"


def test_nothing_behind_the_end(story: Story) -> None:
    end = losses(story.member, story.fork).as_record()["end_lsn"]
    found = losses(story.member, end)
    assert (found.count, found.bytes, found.any_record, found.known) == (0, 0, False, True)


# The last one: it starts the server.
def test_names_come_from_a_server(story: Story) -> None:
    before = losses(story.member, story.fork)
    dead = (story.member.instance.data / "postmaster.pid").read_text().split()[0]
    until(lambda: not pathlib.Path("/proc", dead).exists(), "init has reaped the killed server")
    story.member.instance.start()

    def session(dbname: str) -> t.Any:
        instance = story.member.instance
        params = ConnectionParams(host=str(instance.sockets), port=instance.port, user=OS_USER, dbname=dbname)
        return connect(params, os_user=OS_USER)

    try:
        found = losses(story.member, story.fork, NamesFromServer(session, main_database=DATABASE))
    finally:
        story.member.instance.stop()
    named = {str(item.xid): set(item.relations) for item in found.transactions}
    for xid, expected in story.lost.items():
        assert named[xid] == expected, xid
    rest = next(item for item in before.transactions if str(item.xid) not in story.lost)
    assert any(name.startswith("other: pg_catalog.") for name in named[str(rest.xid)])
