# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The transaction that did the harm, found in the WAL of a real server and undone beside it."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._pitr import search
from ansible_collections.hms.postgres.plugins.module_utils._pitr.look import Questions
from ansible_collections.hms.postgres.tests.real.lab import Lab
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import Site, begin, make_site
from ansible_collections.hms.postgres.tests.real.pitr_site import History, Moment, Recovery

pytestmark = pytest.mark.timeout(300)

VISITS = "INSERT INTO visit SELECT g, 'note ' || g FROM generate_series({}, {}) g"


@dataclasses.dataclass
class Harm:
    """What was done, by name."""

    site: Site
    recovery: Recovery
    begin: str
    done: dict[str, Moment]

    def find(self, table: str, **asked: str) -> list[dict[str, t.Any]]:
        """The candidates for a table."""
        result = search.search(self.recovery.order, {"table": table, **asked}, self.recovery.world, flush=True)
        assert not result.changed
        found: list[dict[str, t.Any]] = result.values["candidates"]
        return found

    def xid(self, name: str) -> int:
        """The transaction of something that was done."""
        return int(self.done[name].xid)


@pytest.fixture(scope="module")
def harm(module_lab: Lab) -> t.Iterator[Harm]:
    """A day at a hospital."""
    site = make_site(module_lab)
    begin(site)
    site.instance.sql("CREATE TABLE visit (id int PRIMARY KEY, note text); CREATE TABLE ward (id int PRIMARY KEY)")
    site.instance.sql("CREATE TABLE bill (id int, note text) PARTITION BY RANGE (id)")
    site.instance.sql("CREATE TABLE bill_1 PARTITION OF bill FOR VALUES FROM (0) TO (1000)")
    site.backup(verify="none")
    history = History(site)
    begun = history.clock()
    done = {
        "admitted": history.do(VISITS.format(1, 500)),
        "few": history.do("DELETE FROM visit WHERE id <= 3"),
        "bad delete": history.do("DELETE FROM visit WHERE id > 100"),
        "undone": history.do("SAVEPOINT a; DELETE FROM visit; ROLLBACK TO a; DELETE FROM visit WHERE id = 4"),
        "in parts": history.do("SAVEPOINT a; DELETE FROM visit WHERE id BETWEEN 5 AND 14; RELEASE a"),
        "bad update": history.do("UPDATE visit SET note = 'x'"),
        "truncate": history.do("TRUNCATE visit"),
        "again": history.do(VISITS.format(1, 50)),
        "rewrite": history.do("ALTER TABLE visit ALTER COLUMN id TYPE bigint"),
        "after": history.do("DELETE FROM visit WHERE id > 40"),
        "billed": history.do("INSERT INTO bill SELECT g, 'b' FROM generate_series(1, 60) g"),
        "unbilled": history.do("DELETE FROM bill WHERE id > 20"),
        "drop": history.do("DROP TABLE ward"),
    }
    recovery = Recovery(site, module_lab.folder / "side")
    yield Harm(site, recovery, begun, done)
    recovery.close()


def test_every_kind_of_harm_is_found_the_gravest_first(harm: Harm) -> None:
    found = harm.find("visit", since=harm.begin)
    told = {one["xid"]: (one["deletes"], one["updates"], one["truncated"], one["rewritten"]) for one in found}
    assert told == {
        harm.xid("truncate"): (0, 0, True, False),
        harm.xid("bad delete"): (400, 0, False, False),
        harm.xid("bad update"): (0, 86, False, False),
        harm.xid("after"): (10, 0, False, False),
        harm.xid("in parts"): (10, 0, False, False),
        harm.xid("few"): (3, 0, False, False),
        harm.xid("undone"): (1, 0, False, False),
        harm.xid("rewrite"): (0, 0, False, True),
    }
    assert [one["xid"] for one in found[:3]] == [
        harm.xid("truncate"),
        harm.xid("bad delete"),
        harm.xid("bad update"),
    ]
    assert [one["choose"] for one in found[:3]] == [1, 2, 3]


def test_the_times_are_those_of_the_commits(harm: Harm) -> None:
    (bad,) = [one for one in harm.find("visit", since=harm.begin) if one["xid"] == harm.xid("bad delete")]
    moment = harm.done["bad delete"]
    assert moment.before.replace(" ", "T").replace("+00", "Z") <= bad["time"]
    assert bad["time"] <= moment.after.replace(" ", "T").replace("+00", "Z")
    assert harm.site.instance.sql(f"SELECT '{bad['local']}'::timestamptz = '{bad['time']}'::timestamptz") == "t"


def test_a_window_leaves_out_what_is_beside_it(harm: Harm) -> None:
    """The table's file in the window is followed through the rewrites after it."""
    found = harm.find("public.visit", since=harm.done["bad delete"].before, until=harm.done["bad delete"].after)
    assert [one["xid"] for one in found] == [harm.xid("bad delete")]


def test_partitions_count_as_the_table(harm: Harm) -> None:
    assert [(one["xid"], one["deletes"]) for one in harm.find("bill", since=harm.begin)] == [(harm.xid("unbilled"), 40)]


def test_the_table_can_be_read_just_before_it_was_emptied(harm: Harm) -> None:
    """At the commit itself it would be locked: a standby holds the lock of a transaction that isn't at its end."""
    worst = harm.find("visit", since=harm.begin)[0]
    harm.recovery.to(lsn=worst["before"], inclusive=False)
    assert harm.recovery.sql("SELECT count(*), count(*) FILTER (WHERE note = 'x') FROM visit") == "86|86"
    made = harm.recovery.to(xid=str(worst["xid"]), questions=Questions(("visit",)))
    assert any(worst["before"] in warning and "locked" in warning for warning in made.warnings)
    assert "lock timeout" in made.values["found"]["tables"]["visit"]["error"]


def test_a_dropped_table_is_told_by_its_files(harm: Harm) -> None:
    result = search.search(harm.recovery.order, {"table": "ward", "since": harm.begin}, harm.recovery.world, flush=True)
    found = result.values["candidates"]
    assert [one["xid"] for one in found] == [harm.xid("drop")]
    assert found[0]["dropped"]
    assert "no table ward now" in result.warnings[0]
    made = harm.recovery.to(lsn=found[0]["before"], inclusive=False)
    assert made.changed
    assert harm.recovery.sql("SELECT count(*) FROM ward") == "0"


def test_no_wal_is_left_lying_about(harm: Harm) -> None:
    assert list(harm.recovery.directory.parent.glob("side.wal.*")) == []


def test_a_naive_window_is_refused(harm: Harm) -> None:
    with pytest.raises(Refused, match="says no time zone") as refused:
        harm.find("visit", since="2026-01-01 00:00:00")
    assert refused.value.reason == "no_zone"
    with pytest.raises(Refused, match="not before until"):
        harm.find("visit", since=harm.done["drop"].after, until=harm.begin)
