# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Swaps of real databases behind two bouncer hosts, under clients that write all the time."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import threading
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.databases_file import Member, render
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.plugin_utils._report.text import render_text
from ansible_collections.hms.postgres.tests.real.engine_hosts import PASSWORD, PROCESSES, Bouncer, Writer
from ansible_collections.hms.postgres.tests.real.engine_site import CLUSTER, SCHEMA
from ansible_collections.hms.postgres.tests.real.lab import Lab, until
from ansible_collections.hms.postgres.tests.real.swap_site import LIVE, SCRATCH, SwapSite, direct

pytestmark = pytest.mark.timeout(300)

WEIRD = 'weird "name; drop'


@pytest.fixture(scope="module")
def site(module_lab: Lab) -> t.Iterator[SwapSite]:
    """A primary and a standby, two bouncer hosts with two processes each."""
    with contextlib.closing(SwapSite(module_lab, databases=2, bouncers=2)) as made:
        yield made


@pytest.fixture(autouse=True)
def nobody_is_left_held(site: SwapSite) -> t.Iterator[None]:
    """Each test leaves clients going, in one database; what it made is gone."""
    yield
    site.agents_end()
    assert site.paused() == []
    assert site.through() == {site.oid(LIVE)}
    for name in site.oids():
        if name != LIVE:
            site.drop(name)


@contextlib.contextmanager
def eight_writers(site: SwapSite) -> t.Iterator[list[Writer]]:
    """Eight clients, half of them on each bouncer host: none may see an error, nothing of theirs may be lost."""
    writers = [
        site.writer(f"w{number}-{len(list(site.folder.iterdir()))}", f"bouncer{1 + number % 2}", rate=40)
        for number in range(8)
    ]
    try:
        yield writers
        for writer in writers:
            writer.goes_on()
    finally:
        for writer in writers:
            writer.stop()
    assert [writer.count("failed") + writer.count("unknown") for writer in writers] == [0] * 8
    for writer in writers:
        assert writer.acknowledged() - site.rows(writer.source) == set()


def test_a_swap_under_writers_fails_nobody_and_a_second_run_has_nothing_to_do(site: SwapSite) -> None:
    old, new = site.oid(LIVE), site.make()
    with eight_writers(site) as writers:
        report = site.swap()
        assert report.changed
        assert site.through() == {new}
        for writer in writers:
            writer.goes_on()
        assert site.inside(LIVE, "SELECT count(DISTINCT source) FROM ledger") == "8", (
            "all of them write into the new one"
        )
        until(lambda: site.connected(old) == [], "nobody stays in the former database")
    record = json.loads(pathlib.Path(report.record_path).read_text())
    kept = record["plan"]["swap"]["kept_as"]
    assert site.oids() == {LIVE: new, kept: old}
    assert record["outcome"]["status"] == "done"
    (way_back,) = record["outcome"]["next_steps"]
    assert way_back.startswith(
        "The way back: ansible-playbook playbooks/restore_rollback.yml -e database=hospital -e scratch="
    )
    assert record["clients"]["failed"] == record["clients"]["lost"] == record["clients"]["unknown"] == 0
    assert record["clients"]["acknowledged"] > 20
    assert {step["result"] for step in record["steps"]} == {"ok"}
    assert "hospital is now what hospital_restore was" in render_text(record)
    before = site.catalog(), site.fingerprint()
    again = site.swap()
    assert not again.changed
    assert again.plan.summary == "hospital is what hospital_restore was: there is nothing to do."
    assert (site.catalog(), site.fingerprint()) == before


def test_the_way_back_under_writers_and_back_again(site: SwapSite) -> None:
    old, new = site.oid(LIVE), site.make()
    with eight_writers(site):
        site.swap()
        assert site.through() == {new}
        back = site.swap(state="rolled_back")
        assert back.changed
        assert site.through() == {old}
        before = site.catalog()
        again = site.swap(state="rolled_back")
        assert not again.changed, "it goes back one step, however often it is asked"
        assert site.catalog() == before
    after = next(name for name in site.oids() if name.startswith("hospital_after_"))
    assert site.oids() == {LIVE: old, after: new}
    forth = site.swap(scratch=after)
    assert forth.changed
    assert site.through() == {new}
    assert not site.swap(scratch=after).changed


def test_check_mode_shows_the_plan_and_touches_nothing(site: SwapSite) -> None:
    site.make()
    with direct(site.primary()):
        before = site.catalog(), site.fingerprint()
        report = site.swap(check_mode=True)
        site.agents_end()
        assert (site.catalog(), site.fingerprint()) == before
        assert len(site.connected(site.oid(LIVE))) >= 1
    assert report.changed
    assert not report.plan.blocked
    actions = [(action.id, action.host) for action in report.plan.actions]
    assert [host for name, host in actions if name == "hold_pools"] == ["bouncer1", "bouncer2"]
    assert ("swap", "db1") in actions
    assert "reporting" in report.plan.as_record()["swap"]["sessions"][0]
    assert any(
        "1 session; ended while the clients are held (sessions: terminate)" in text for text in report.plan.warnings
    )


def unchanged(site: SwapSite, before: str) -> None:
    """Nobody is held, and the catalog is as it was."""
    assert site.paused() == []
    assert site.catalog() == before


def test_a_session_past_the_bouncers_is_refused_or_ended_as_it_was_said(site: SwapSite) -> None:
    new = site.make()
    with direct(site.primary()) as client:
        before = site.catalog()
        with pytest.raises(Refused, match=r"past the bouncers: pid \d+: postgres \(reporting\)"):
            site.swap(sessions="refuse")
        unchanged(site, before)
        assert client.execute("SELECT 1").fetchone() == (1,)
        with pytest.raises(HmsError, match=r"Still connected after 0\.5 seconds: 1 session: pid") as caught:
            site.swap(sessions="wait", sessions_deadline=0.5)
        assert caught.value.state == "No client was held and nothing was renamed."
        unchanged(site, before)
        assert client.execute("SELECT 1").fetchone() == (1,)
        report = site.swap(sessions="terminate")
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            client.execute("SELECT 1")
    assert site.through() == {new}
    assert report.record is not None
    assert "(reporting)" in report.record["swap"]["ended"][0]
    assert "Ended past the bouncers: 1 session." in report.record["outcome"]["message"]


def test_a_session_past_the_bouncers_is_waited_for(site: SwapSite) -> None:
    new = site.make()
    client = direct(site.primary())
    timer = threading.Timer(1.0, client.close)
    timer.start()
    report = site.swap(sessions="wait", sessions_deadline=60.0)
    timer.join()
    assert site.through() == {new}
    assert report.record is not None
    assert report.record["swap"]["ended"] == []


def test_a_session_that_will_not_end_leads_back(site: SwapSite) -> None:
    """Its process is stopped: the server tells it to end, and it doesn't."""
    site.make()
    client = direct(site.primary())
    pid = client.info.backend_pid
    before = site.catalog()
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(
            HmsError, match=f"Still connected after 3 seconds: 1 session: pid {pid}: postgres"
        ) as caught:
            site.swap(sessions_deadline=3.0)
        unchanged(site, before)
    finally:
        os.kill(pid, signal.SIGCONT)
        client.close()
    assert caught.value.state.startswith("hospital is the database that it was; the clients go on there.")
    record = json.loads(pathlib.Path(caught.value.details["record"]).read_text())
    assert record["outcome"]["status"] == "rolled_back"


def test_a_transaction_that_does_not_end_leads_back(site: SwapSite) -> None:
    site.make()
    before = site.catalog()
    with site.open_transaction("bouncer2"):
        with pytest.raises(HmsError, match="not every transaction through bouncer2 came to its end"):
            site.swap(hold_deadline=3.0, force=("long_transactions",))
        unchanged(site, before)


def test_of_two_operators_one_is_refused_by_name(site: SwapSite) -> None:
    new = site.make()
    with site.open_transaction("bouncer1"):
        first = site.swap_child(hold_deadline=45.0)  # clients are thrown out after sixty
        until(lambda: bool(site.paused()), "the first operator holds the pools")
        with pytest.raises(Refused, match=r"Another operation is at work: .*-swap-.*, started by tester@here"):
            site.swap()
    assert first.end() == 0
    assert site.through() == {new}


def test_a_frozen_bouncer_process_blocks_before_anybody_is_held(site: SwapSite) -> None:
    site.make()
    before = site.catalog()
    pid = site.bouncers["bouncer2"].pid("2")
    os.kill(pid, signal.SIGSTOP)
    try:
        with pytest.raises(Refused, match="PgBouncer processes 2 on bouncer2 don't answer"):
            site.swap()
    finally:
        os.kill(pid, signal.SIGCONT)
    unchanged(site, before)


def test_who_reads_the_old_database_on_a_standby_is_ended(site: SwapSite) -> None:
    """A standby tells nobody that a database was renamed: the session would read old data for ever."""
    new = site.make()
    standby = site.standby()
    with direct(standby) as reader:
        assert reader.execute("SELECT pg_is_in_recovery()").fetchone() == (True,)
        report = site.swap()
        assert any(
            "On the standby db2 1 session will stay in the old database" in text for text in report.plan.warnings
        )
        with pytest.raises(psycopg.OperationalError, match="terminating connection"):
            reader.execute("SELECT 1")
    with direct(standby) as reader:
        sql = "SELECT oid FROM pg_database WHERE datname = current_database()"
        assert reader.execute(sql).fetchone() == (new,)


def test_an_entry_that_leads_to_a_standby_leads_into_the_new_database(site: SwapSite) -> None:
    """Its connections may have been opened before the standby knew of the swap."""
    new = site.make()
    files = {bouncer: bouncer.databases.read_text() for bouncer in site.bouncers.values()}
    more = f"hospital_ro = host=127.0.0.1 port={site.standby().port} dbname={LIVE}\n"
    try:
        offer({bouncer: content + more for bouncer, content in files.items()})
        assert site.through("hospital_ro") == site.through()
        report = site.swap()
        assert site.through("hospital_ro") == {new}
        assert report.record is not None
        told = [step["evidence"]["reconnected"] for step in report.record["steps"] if step["id"] == "reconnect"]
        assert told == [["1/hospital_ro", "2/hospital_ro"]] * 2
    finally:
        offer(files)


def test_what_bouncers_need_is_made_in_a_database_that_lacks_it(site: SwapSite) -> None:
    """A new client logs in through the bouncer by a function in its database."""
    new = site.make(schema=False)
    site.inside(SCRATCH, SCHEMA[SCHEMA.index("CREATE TABLE ledger") :])
    plan = site.swap(check_mode=True).plan
    assert any(action.id == "prepare_scratch" for action in plan.actions)
    report = site.swap()
    assert site.through() == {new}, "asked by a client that no process knew"
    assert report.record is not None
    assert report.record["clients"]["failed"] == 0
    with site.writing("late") as writer:
        writer.goes_on()


def test_a_weird_name_goes_the_same_way(site: SwapSite) -> None:
    """Offered by the bouncers under a plain name, because theirs must be one."""
    old, new = site.make(WEIRD), site.make("other; --")
    files = {bouncer: bouncer.databases.read_text() for bouncer in site.bouncers.values()}
    members = [Member(each.name, "127.0.0.1", each.port) for each in site.databases.values()]
    offered = [{"name": LIVE, "dbname": LIVE}, {"name": "weird", "dbname": WEIRD}]
    content = render(cluster=CLUSTER, operation="site", primary="db1", databases=offered, members=members)
    try:
        offer(dict.fromkeys(files, content))
        assert site.through("weird") == {old}
        kept = "kept 'as\" x"
        report = site.swap(database=WEIRD, scratch="other; --", keep_as=kept)
        assert site.through("weird") == {new}
        assert site.through() == {site.oid(LIVE)}
        assert site.oids()[kept] == old
        assert report.record is not None
        assert report.record["clients"]["failed"] == 0
        assert not site.swap(database=WEIRD, scratch="other; --", keep_as=kept).changed
        assert site.swap(database=WEIRD, scratch=kept, keep_as="other; --").changed
        assert site.through("weird") == {old}
    finally:
        offer(files)


def offer(files: t.Mapping[Bouncer, str]) -> None:
    """Let every process read these databases files."""
    for bouncer, content in files.items():
        bouncer.databases.write_text(content)
        for process in PROCESSES:
            bouncer.console("RELOAD", process)
            until(lambda b=bouncer, p=process: bool(b.console("SHOW DATABASES", p)), "it has read it")  # type: ignore[misc]  # bound now, on purpose


REFUSED: dict[str, tuple[dict[str, t.Any], str]] = {
    "no scratch": ({"scratch": "nowhere"}, "There is no database 'nowhere'"),
    "no live": ({"database": "clinic"}, "There is no database 'clinic'"),
    "the same name twice": ({"scratch": LIVE}, "must be three different names"),
    "a name that is taken": ({"keep_as": "postgres"}, "There is a database 'postgres' already"),
    "a name that is too long": ({"keep_as": "x" * 64}, "a database's name has 1 to 63 bytes, this one has 64"),
    "the server's own database": ({"database": "postgres"}, "postgres belongs to PostgreSQL itself"),
    "another database's name": ({"confirm": "clinic"}, "confirm is 'clinic', but the database is 'hospital'"),
    "nothing kept": ({"state": "rolled_back"}, "so there is none to go back to"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_bad_input_is_refused_and_nothing_is_touched(site: SwapSite, case: str) -> None:
    wishes, message = REFUSED[case]
    site.make()
    before = site.catalog()
    with pytest.raises(Refused) as caught:
        site.swap(**wishes)
    assert message in caught.value.message
    assert caught.value.state == "Nothing was touched."
    record = json.loads(pathlib.Path(caught.value.details["record"]).read_text())
    assert record["outcome"]["status"] == "refused"
    unchanged(site, before)


def test_roles_that_would_be_shut_out_are_named(site: SwapSite) -> None:
    site.make()
    site.ask(f"REVOKE CONNECT ON DATABASE {SCRATCH} FROM PUBLIC")
    before = site.catalog()
    with pytest.raises(Refused, match=r"hms_monitor.*hospital_app may connect to hospital and could not") as caught:
        site.swap()
    assert caught.value.reason == "connect_lost"
    unchanged(site, before)
    assert PASSWORD not in json.dumps(caught.value.as_dict())
