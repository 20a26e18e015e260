# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a drill makes of pgBackRest's WAL and of an application's words, and what the schedule says of drills."""

from __future__ import annotations

import json
import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils import _drill_work
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Encryption
from ansible_collections.hms.postgres.plugins.module_utils._artifact.sources import Sources
from ansible_collections.hms.postgres.plugins.module_utils._backup import policy as policies
from ansible_collections.hms.postgres.plugins.module_utils._backup.info import proven_within
from ansible_collections.hms.postgres.plugins.module_utils._drill import plan
from ansible_collections.hms.postgres.plugins.module_utils._drill.arguments import DRILL, order_from
from ansible_collections.hms.postgres.plugins.module_utils._drill.django import Answer, pending_in, read_environment
from ansible_collections.hms.postgres.plugins.module_utils._drill.instance import hba_text, ident_text
from ansible_collections.hms.postgres.plugins.module_utils._drill.model import ENGINES, Application, Outcome
from ansible_collections.hms.postgres.plugins.module_utils._drill.physical import Chain, judge_wal
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import NOW, ago, entry, proven

THIRD, FOURTH = "000000010000000000000003", "000000010000000000000004"
RESTORED = f'LOG:  restored log file "{THIRD}" from archive\n'


@pytest.mark.parametrize(
    ("chain", "log", "ok", "words"),
    [
        (Chain(THIRD), RESTORED, True, f"replayed to segment {THIRD}, the end of the archive"),
        # more came while the drill was at work
        (Chain("000000010000000000000002"), RESTORED, True, THIRD),
        (Chain(FOURTH), RESTORED, False, f"ended with segment {THIRD}, and the archive goes on to {FOURTH}"),
        (Chain(FOURTH), RESTORED + "ERROR: [029]: bad\n", False, "; [029]: bad"),
        (Chain(FOURTH), "", False, "ended with segment none"),
        (Chain(THIRD, ("WAL segment 5 is missing",)), RESTORED, False, "WAL segment 5 is missing"),
        (Chain(""), RESTORED, True, THIRD),
    ],
)
def test_whether_recovery_came_to_the_end(chain: Chain, log: str, ok: bool, words: str) -> None:
    found, detail = judge_wal(chain, log)
    assert found is ok
    assert words in detail


def test_the_newest_of_a_repository_of_whichever_type() -> None:
    full, incremental = (
        entry(ago(days=days), engine="pgbackrest", type_=type_) for days, type_ in ((3, "full"), (1, "incremental"))
    )
    bad = entry(ago(hours=1), engine="pgbackrest", history=[proven(ago(), ok=False)])
    assert plan.newest_physical([full, incremental, bad]) == incremental
    assert plan.newest_physical([bad]) is None


def test_files_come_in_proportion_and_wal_as_it_is() -> None:
    assert plan.projected_physical(40.0, 5.0, 1000, 1500) == 65.0
    assert plan.projected_physical(40.0, 5.0, 1000, None) == 45.0
    assert plan.projected_physical(40.0, 5.0, 0, 1500) is None


PLAN = """\
Operations to perform:
  Apply all migrations: auth, wards
Planned operations:
wards.0002_ward_floor
    Add field floor to ward
auth.0013_x
    Raw SQL operation -> ['UPDATE auth.user']
"""


def test_pending_migrations_are_read() -> None:
    assert pending_in(PLAN) == ("wards.0002_ward_floor", "auth.0013_x")
    assert pending_in("Planned operations:\n  No planned migration operations.\n") == ()
    assert pending_in("wards.0001_initial\n") == ()


@pytest.mark.parametrize(
    ("answer", "told", "oks", "warned"),
    [
        (Answer("", ""), "its checks hold, no migration is pending", [True, True], 0),
        (Answer("", "", ("wards.0002",)), "its checks hold, 1 migration is pending", [True, True], 1),
        (
            Answer("check ended with 1", "migrate ended with 1"),
            "check ended with 1; migrate ended with 1",
            [False] * 2,
            0,
        ),
    ],
)
def test_what_an_application_says(answer: Answer, told: str, oks: list[bool], warned: int) -> None:
    assert answer.told() == told
    assert [check["ok"] for check in answer.checks()] == oks
    assert len(answer.warnings("x")) == warned


def test_an_environment_file_is_read_as_systemd_does(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "app.env"
    path.write_text("# a remark\nexport A='1 2'\nB=\"x=y\"\n\nC=\nnothing\n D = d \n")
    assert read_environment(str(path)) == {"A": "1 2", "B": "x=y", "C": "", "D": "d"}
    with pytest.raises(HmsError, match="can't be read"):
        read_environment(str(tmp_path / "none"))


def test_who_may_come_in() -> None:
    assert hba_text("postgres", "") == 'local all "postgres" peer\n'
    assert hba_text("postgres", "app").startswith("local all hms_drill_application peer map=drill\n")
    assert (ident_text(""), ident_text("app")) == ("", 'drill "app" hms_drill_application\n')


def order(base: t.Mapping[str, t.Any] | None = None, **params: t.Any) -> t.Any:
    """An order from arguments."""
    return order_from(params, base=base or {}, sources=Sources("hospital", "staging"), encryption=Encryption())


def test_what_follows_from_arguments() -> None:
    made = order({"database": "hospital"}, jobs=3, django={"directory": "/app", "os_user": "app", "settings": None})
    assert (made.engines, made.recover_to, made.processes, made.environment) == (ENGINES, "archive_end", 3, "staging")
    assert made.application == Application("/app", "app", database="hospital")
    assert order(django={"directory": "/app", "os_user": "app", "database": "x"}).application.database == "x"
    assert order(recover_to="consistent", engines=["pg_dump"], environment="testing").environment == "testing"


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"engines": ["tar"]}, "not tar"),
        ({"recover_to": "now"}, "recover_to is 'now'"),
        ({"django": {"directory": "/app"}}, "needs directory and os_user"),
        ({"django": {"directory": "/app", "os_user": "a", "pip": "x"}}, "no option pip"),
    ],
)
def test_what_makes_no_sense(params: dict[str, t.Any], words: str) -> None:
    with pytest.raises(HmsError, match=words):
        order(**params)


POLICY = {
    "cluster": "hospital",
    "environment": "staging",
    "database": "hospital",
    "store": {"folder": "/srv/backups"},
    "schedule": {},
}


def test_the_drill_of_the_schedule_is_told_what_the_policy_says() -> None:
    drill = {"host": "db2", "cron": "@weekly", "engines": ["pgbackrest"], "allow_phi": True}
    made = policies.parse({**POLICY, "drill": drill})
    params = _drill_work.params_of(made, "/etc/hms")
    assert set(params) <= set(DRILL)
    assert (params["engines"], params["allow_phi"], params["environment"]) == (["pgbackrest"], True, "staging")
    assert (params["config_directory"], params["recover_to"]) == ("/etc/hms", "archive_end")


@pytest.mark.parametrize("cron", ["every sunday", "0 0 30 2 *"])
def test_a_drill_that_never_comes(cron: str) -> None:
    with pytest.raises(HmsError, match="drill: "):
        policies.parse({**POLICY, "drill": {"cron": cron}})


def test_proven_within() -> None:
    drilled = entry(ago(days=9), history=[proven(ago(days=3), level="restored")])
    params = {"proven_within": "7d", "database": "hospital"}
    found = proven_within(params, [drilled, entry(ago(days=1))], NOW)
    assert (found["ok"], found["id"], found["age"]) == (True, drilled.id, 3 * 86400)
    assert found["what"] == f"The last restore drill of hospital that passed was 3 days ago, of {drilled.id}."
    late = proven_within({**params, "proven_within": "2d"}, [drilled], NOW)
    assert (late["ok"], late["what"].endswith("; one within 2 days is demanded.")) == (False, True)
    never = proven_within({"proven_within": 60}, [entry(ago(days=1))], NOW)
    assert never == {
        "ok": False,
        "what": "No backup that is there was ever restored by a drill.",
        "id": "",
        "age": None,
    }
    with pytest.raises(HmsError, match="proven_within is 'soon'"):
        proven_within({"proven_within": "soon"}, [], NOW)
    assert not proven_within(params, [entry(ago(), history=[proven(ago(days=-1), level="restored")])], NOW)["ok"]


def test_an_outcome_in_one_line() -> None:
    values: dict[str, t.Any] = {
        "database": "hospital",
        "id": "b1",
        "store": "repo1",
        "problems": ("it is broken.",),
        "seconds": {},
        "restore_seconds": 4.0,
        "bytes": 1,
        "bytes_per_second": None,
        "database_bytes": 1,
        "present_bytes": None,
        "projected_rto_seconds": 4.25,
    }
    assert Outcome(ok=False, **values).told() == "b1 of hospital in repo1 did not come back: it is broken"
    whole = Outcome(ok=True, **{**values, "database": ""})
    assert whole.told() == "b1 in repo1 came back in 4.0 s; 4.2 s for the size of today"
    assert json.loads(json.dumps(whole.as_dict()))["engine"] == "pg_dump"
