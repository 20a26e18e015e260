# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a restore plans, and everything that it refuses."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.database import DatabaseFacts, ServerFacts
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Manifest, Member
from ansible_collections.hms.postgres.plugins.module_utils._artifact.sources import Sources
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._restore.facts import LiveFacts, TargetFacts
from ansible_collections.hms.postgres.plugins.module_utils._restore.find import Artifact, plain_name
from ansible_collections.hms.postgres.plugins.module_utils._restore.model import FORCEABLE, Assertion, Order
from ansible_collections.hms.postgres.plugins.module_utils._restore.outline import Outline
from ansible_collections.hms.postgres.plugins.module_utils._restore.plan import (
    RestorePlan,
    left_of,
    needed_bytes,
    plan_restore,
    refuse,
)
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import NOW, MemoryStore, manifest

LIVE = LiveFacts(16400, DatabaseFacts("hospital", 5000, "UTF8", "C", "C", "c"), {"owner": "keeper"})
TARGET = TargetFacts(
    NOW,
    ServerFacts(150018, "15.18", "7", 1, is_standby=False, lock_slots=1000),
    superuser=True,
    live=LIVE,
    roles=frozenset({"keeper", "postgres"}),
    tablespaces=frozenset({"pg_default"}),
    extensions={"pg_trgm": "1.6"},
    free=10**9,
)
OUTLINE = Outline(server="15.18", client="15.18")


def order(**changes: t.Any) -> Order:
    """An order."""
    where = ConnectionParams("/run", dbname=changes.pop("database", "hospital"))
    made = Order("hospital", "staging", where, "postgres", "/state", Sources("hospital"), work_dir="/work")
    return dataclasses.replace(made, **changes)


def made(**changes: t.Any) -> Manifest:
    """A manifest that fits the target."""
    server = {"version": "15.18", "version_num": 150018, "system_identifier": "7", "encoding": "UTF8"}
    contents = {"database_bytes": 1000, "roles": ["keeper"], "extensions": {"pg_trgm": "1.6"}, "tablespaces": []}
    return manifest(
        NOW, server={**server, **changes.pop("server", {})}, contents=contents | changes.pop("contents", {}), **changes
    )


def artifact(found: Manifest | None = None, name: str = "data.dump.zst", **changes: t.Any) -> Artifact:
    """An artifact, by default one with a manifest."""
    store = MemoryStore()
    if found is None:
        return Artifact(f"/old/{name}", store, "", None, Member("data", name, 100, ""), **changes)
    return Artifact(found.id, store, found.key(""), found, found.members[0], **{"verified": True, **changes})


def plan(
    wish: Order | None = None,
    what: Artifact | None = None,
    *,
    outline: Outline = OUTLINE,
    target: TargetFacts = TARGET,
    check: bool = False,
) -> RestorePlan:
    """The plan for it."""
    return plan_restore(wish or order(), what or artifact(made()), outline, target, check=check)


def rules(found: RestorePlan) -> list[str]:
    """What it is refused for."""
    return [refusal.rule for refusal in found.refusals]


def test_a_plan_without_a_but() -> None:
    found = plan()
    assert rules(found) == []
    assert found.warnings == ()
    assert (found.before, found.keep_until) == ("hospital_before_20261122T120000Z", "2026-11-29T12:00:00.000Z")
    assert (found.needed, found.staged, found.dropped) == (1000, "", ())
    refuse(found)
    assert found.as_dict()["artifact"]["verified by manifest"] == "yes"


LIVE_RULES = {
    "prepared": "prepared_transactions",
    "slots": "logical_slots",
    "subscriptions": "subscriptions",
}


@pytest.mark.parametrize(("what", "rule"), LIVE_RULES.items())
def test_obstacles_to_a_rename(what: str, rule: str) -> None:
    live = dataclasses.replace(LIVE, **t.cast(t.Any, {what: ("x",)}))
    target = dataclasses.replace(TARGET, live=live)
    assert rules(plan(target=target)) == [rule]
    forced = plan(order(force=frozenset({rule}) & set(FORCEABLE)), target=target)
    assert rules(forced) == ([rule] if rule == "prepared_transactions" else [])


def test_pg_cron_and_sessions() -> None:
    target = dataclasses.replace(TARGET, live=dataclasses.replace(LIVE, cron=True, sessions=3))
    assert rules(plan(target=target)) == ["pg_cron"]
    wish = order(strategy="in_place", force=frozenset({"pg_cron"}))
    assert rules(plan(wish, target=target)) == ["sessions"]
    assert rules(plan(dataclasses.replace(wish, sessions="terminate"), target=target)) == []


@pytest.mark.parametrize(
    ("changes", "allowed", "rule"),
    [
        ({"environment": "production"}, {"allow_phi": True}, "production_data"),
        ({"environment": "production"}, {"masks": ("/mask.sql",)}, "production_data"),
        ({"server": {"system_identifier": "8"}}, {"allow_other_system": True}, "other_system"),
        ({"database": "billing"}, {"allow_other_database": True}, "other_database"),
        ({"type_": "schema_only"}, {"force": frozenset({"schema_only"})}, "schema_only"),
        ({"server": {"encoding": "LATIN1"}}, {"force": frozenset({"encoding_differs"})}, "encoding_differs"),
        ({"contents": {"tablespaces": ["fast"]}}, {"force": frozenset({"missing_tablespaces"})}, "missing_tablespaces"),
        ({"contents": {"database_bytes": 10**12}}, {"force": frozenset({"no_room"})}, "no_room"),
        ({"contents": {"roles": ["gone"]}}, None, "missing_roles"),
        ({"contents": {"extensions": {"postgis": "3"}}}, None, "missing_extensions"),
        ({"server": {"version": "17.1"}}, None, "dump_newer"),
    ],
)
def test_where_it_comes_from_and_what_it_needs(changes: t.Any, allowed: t.Any, rule: str) -> None:
    what = artifact(made(**changes))
    assert rules(plan(what=what)) == [rule]
    if allowed is not None:
        assert rules(plan(order(**allowed), what)) == []
    with pytest.raises(Refused) as caught:
        refuse(plan(what=what))
    assert (caught.value.reason, caught.value.state) == (rule, "Nothing was touched.")
    assert caught.value.next_step


def test_production_is_confirmed_by_name() -> None:
    wish = order(environment="production")
    assert rules(plan(wish)) == ["not_confirmed"]
    planned = plan(wish, check=True)
    assert (rules(planned), len(planned.warnings)) == ([], 1)
    for name, expected in (("hospital", []), ("hospitl", ["not_confirmed"])):
        assert rules(plan(dataclasses.replace(wish, confirm=name))) == expected
    assert rules(plan(order(confirm="other"), check=True)) == ["not_confirmed"]


def test_the_server_itself() -> None:
    standby = dataclasses.replace(TARGET.server, is_standby=True)
    target = dataclasses.replace(TARGET, server=standby, superuser=False, backup={"by": "cron", "pid": 7})
    assert rules(plan(target=target)) == ["standby", "not_superuser", "backup_running"]
    assert rules(plan(order(force=frozenset({"standby"})), target=target))[0] == "bad_config"


def test_scripts_and_damage() -> None:
    script = artifact(name="old.sql.gz.gpg")
    assert rules(plan(what=script)) == ["plain_sql"]
    allowed = order(allow_plain_sql=True)
    assert rules(plan(allowed, script)) == []
    assert rules(plan(allowed, script, outline=Outline(problems=("line 1 holds x",), whole=False))) == [
        "malicious_sql",
        "artifact_damaged",
    ]
    assert rules(plan(what=artifact(made(), bad=True))) == ["bad_artifact"]
    assert rules(plan(outline=Outline(problems=("unsupported version",)))) == ["not_an_archive"]
    assert rules(plan(outline=Outline("17.1", "17.1", problems=("unsupported version",)))) == ["dump_newer"]


def test_where_it_lies_decrypted_meanwhile() -> None:
    """From a stream nowhere; for several jobs that somebody asked for, or unpacked, on a disk, and then it is told."""
    archive = artifact(made())
    folder = dataclasses.replace(archive, member=Member("data", "data.tar.zst.gpg", 100, ""))
    cases: list[tuple[Order, Artifact, str]] = [
        (order(jobs=4), archive, "without a name"),
        (order(jobs=None), archive, ""),
        (order(jobs=1), archive, ""),
        (order(jobs=None), folder, "unpacked and unencrypted"),
        (order(jobs=1), folder, "unpacked and unencrypted"),
        (order(jobs=4), artifact(), "without a name"),
        (order(jobs=4, allow_plain_sql=True), artifact(name="old.sql.gz"), ""),
    ]
    for wish, what, words in cases:
        found = plan(wish, what)
        assert found.staged == ("/work" if words else "")
        assert words in " ".join(found.warnings)
        assert ("/work" in " ".join(found.steps)) == bool(words)


def test_what_is_only_told() -> None:
    lonely = plan(order(jobs=4), artifact(), outline=Outline("14.2", "14.2", owners=frozenset({"x"}), subscriptions=2))
    told = " ".join(lonely.warnings)
    for words in ("verified by manifest: no", "lacks: x", "14.2", "without a name", "2 subscriptions"):
        assert words in told
    assert lonely.staged == "/work"
    gone = plan(target=dataclasses.replace(TARGET, live=None))
    assert (gone.before, gone.live_exists) == (None, False)
    assert any("no database hospital" in warning for warning in gone.warnings)
    later = plan(what=artifact(made(contents={"extensions": {"pg_trgm": "1.5"}}), verified=False))
    assert len(later.warnings) == 2


def test_steps_say_what_happens_in_order() -> None:
    wish = order(strategy="in_place", masks=("/m.sql",), assertions=(Assertion("a", "SELECT 1", "1"),))
    target = dataclasses.replace(TARGET, leftovers=("hms_restore_x",))
    steps = plan(wish, target=target).steps
    words = ["drop hms_restore_x", "read", "backup", "refuse", "make", "pg_restore", "compare", "mask", "ask", "give"]
    assert [word in step for word, step in zip(words, steps)] == [True] * len(words)
    assert steps[-1] == "rename it to hospital"
    assert not any("backup" in step for step in plan(dataclasses.replace(wish, backup_before=False)).steps)


def test_what_an_earlier_run_did_is_no_step_any_more() -> None:
    first = plan(target=dataclasses.replace(TARGET, leftovers=("hms_restore_x",)))
    assert left_of(first, live=False, ready=False) == first
    ready = left_of(first, live=False, ready=True)
    assert (len(ready.steps), ready.dropped) == (1, ())
    assert ready.steps[0].startswith(f"give {first.scratch}, proven before, owner")
    live = left_of(first, live=True, ready=False)
    assert (live.steps, live.dropped) == ((), ())


def test_room_is_guessed_where_nobody_counted() -> None:
    assert needed_bytes(artifact(name="old.sql.gz")) == 800
    assert needed_bytes(artifact(name="old.dump")) == 200
    assert plain_name("old.sql.gz.gpg") == "old.sql"


def test_in_place_counts_the_room_that_the_live_one_leaves() -> None:
    target = dataclasses.replace(TARGET, free=100)
    what = artifact(made(contents={"database_bytes": 4000}))
    assert rules(plan(what=what, target=target)) == ["no_room"]
    assert rules(plan(order(strategy="in_place"), what, target=target)) == []
    assert plan(order(keep_days=1), target=TARGET).keep_until == "2026-11-23T12:00:00.000Z"
