# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What operators see and ask for: the screen of all backups, a backup's result, the plan of one made by hand."""

from __future__ import annotations

import base64
import json
import typing as t

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.filter.backup_plan import backup_plan
from ansible_collections.hms.postgres.plugins.filter.backup_text import backup_text
from ansible_collections.hms.postgres.plugins.filter.backups_report import backups_report
from ansible_collections.hms.postgres.plugins.filter.drill_report import drill_report
from ansible_collections.hms.postgres.plugins.filter.verify_report import verify_report

AT = "2026-11-22T02:00:00.000Z"
BACKUP: dict[str, t.Any] = {
    "id": "20261122T020000Z-backup-3fa9",
    "database": "hospital",
    "engine": "pg_dump",
    "type": "full",
    "host": "db1",
    "started": AT,
    "age_seconds": 36000,
    "bytes": 365000000,
    "encryption": "public_key",
    "verified": True,
    "proof": {"level": "read", "at": AT},
    "verification": {"level": "read", "ok": True, "at": AT},
    "copies": [{"store": "/srv/backups", "bad": False}, {"store": "s3://hospital", "bad": False}],
    "restorable_from": AT,
    "restorable_to": AT,
    "held": False,
    "locked_until": "",
}
JOB = {
    "name": "daily",
    "database": "hospital",
    "engine": "pg_dump",
    "type": "full",
    "cron": "0 2 * * *",
    "run_on": "primary",
    "max_age": 108000,
}
GOOD = {"job": "daily", "database": "hospital", "ok": True, "age": 36000, "what": "daily: young"}
NEVER = {"job": "daily", "database": "hospital", "ok": False, "age": None, "what": "daily: never made"}
OLD = {"job": "daily", "database": "hospital", "ok": False, "age": 200000, "what": "daily: too old"}


def answer(*backups: dict[str, t.Any], freshness: t.Any = "good", **more: t.Any) -> dict[str, t.Any]:
    """What a host registered."""
    values = {"cluster": "hospital", "environment": "production", "at": "2026-11-22T12:00:00.000Z", "problems": []}
    fresh = [GOOD] if freshness == "good" else [freshness] if freshness else []
    return {**values, "backups": list(backups), "total": len(backups), "jobs": [JOB], "freshness": fresh, **more}


def report(**answers: t.Any) -> tuple[str, list[str]]:
    """The screen and the failures."""
    hostvars = {name: {} if found is None else {"hms_backups": found} for name, found in answers.items()}
    found = backups_report(list(answers), hostvars)
    assert all(len(line) <= 132 for line in found["screen"])
    return "\n".join(found["screen"]), found["failures"]


def test_all_is_well() -> None:
    screen, failures = report(db1=answer(BACKUP), db2=answer({**BACKUP, "copies": BACKUP["copies"][1:]}))
    assert failures == []
    assert "Backups of hospital (production)" in screen
    assert "Every job has a verified backup that is young enough." in screen
    (line,) = [line for line in screen.splitlines() if BACKUP["id"] in line]
    assert line.split() == [
        *(BACKUP["id"], "full", "10", "h", "348.1", "MiB", "read", "11-22", "02:00", "11-22", "02:00", "db1"),
        *("db1,", "s3://hospital"),
    ]
    assert "1 backup." in screen


def test_the_best_answer_counts() -> None:
    """A standby with a folder of its own has none; the primary has."""
    assert report(db2=answer(freshness=NEVER), db1=answer(BACKUP))[1] == []
    assert report(db2=answer(freshness=NEVER), db1=answer(BACKUP, freshness=OLD))[1] == ["daily: too old"]
    screen, failures = report(db1=answer(freshness=NEVER))
    assert failures == ["daily: never made"]
    assert "TOO OLD   daily: never made" in screen
    assert "There is no backup." in screen
    assert screen.splitlines()[5].endswith("NEVER")


@pytest.mark.parametrize("first", ["db1", "db2"])
def test_a_drill_on_one_host_is_told_whoever_answers_first(first: str) -> None:
    """It restored the copy in its own folder; the others know the one in the bucket, which was read."""
    drilled = {**BACKUP, "restored_at": AT, "proof": {"level": "restored", "at": "2026-11-22T03:00:00.000Z"}}
    read = {**BACKUP, "restored_at": None, "copies": BACKUP["copies"][1:]}
    screen, _failures = report(**{first: answer(drilled), "db3": answer(read), "db0": answer(read)})
    (line,) = [line for line in screen.splitlines() if BACKUP["id"] in line]
    assert "restored 11-22 03:00" in line
    screen, _failures = report(db0=answer(read), **{first: answer(drilled)})
    assert "restored 11-22 03:00" in screen


def test_nothing_is_demanded() -> None:
    screen, failures = report(db1=answer(BACKUP, freshness=None, jobs=[]))
    assert failures == []
    assert "nobody will be told when backups stop" in screen


def test_hosts_that_say_nothing() -> None:
    screen, failures = report(db1={"msg": "no policy", "reason": "bad_config"}, db2=answer(BACKUP), db3=None)
    assert failures == []
    assert "PROBLEM   db1: no policy" in screen
    assert "PROBLEM   db3: it could not be reached." in screen
    assert report(db1={"msg": "no policy"})[1] == ["No host could tell its backups. db1: no policy"]
    assert report(db1=None)[1] == ["No host could tell its backups. db1: it could not be reached."]
    with pytest.raises(AnsibleFilterError, match="db9 is no host"):
        backups_report(["db9"], {})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"verified": False, "proof": None, "verification": None}, " NO "),
        ({"verified": False, "proof": None, "verification": {"ok": False, "at": AT}}, " BAD 11-22 02:00"),
        ({"copies": [{"store": "s3://x", "bad": False}, {"store": "/srv", "bad": True}]}, "read 11-22 02:00, 1 BAD"),
        ({"encryption": "none"}, "full *"),
        ({"restorable_to": None}, "11-22 02:00 … hole"),
        ({"restorable_to": "2026-11-22T09:30:00.000Z"}, "11-22 02:00 … 09:30"),
        ({"restorable_to": "2026-11-24T09:30:00.000Z"}, "11-22 02:00 … 11-24 09:30"),
        ({"held": True, "locked_until": AT, "copies": []}, "held, locked"),
        ({"started": "", "age_seconds": None, "restorable_from": "", "restorable_to": "?"}, BACKUP["id"]),
    ],
)
def test_what_a_line_says(changes: dict[str, t.Any], words: str) -> None:
    screen, _failures = report(db1=answer({**BACKUP, **changes}))
    assert words in next(line for line in screen.splitlines() if BACKUP["id"] in line)


def test_problems_are_told_once_and_with_their_host_where_they_are_its_own() -> None:
    problems = [{"store": "s3://x", "what": "garbled in s3."}, {"store": "/srv", "what": "garbled here."}]
    screen, _failures = report(db1=answer(BACKUP, problems=problems), db2=answer(BACKUP, problems=problems))
    assert screen.count("garbled in s3.") == 1
    assert "PROBLEM   garbled here. (on db1)" in screen
    assert "PROBLEM   garbled here. (on db2)" in screen


def test_only_the_newest_are_shown() -> None:
    many = [{**BACKUP, "id": f"202611{day:02}T020000Z-backup-3fa9", "started": str(day + 10)} for day in range(1, 30)]
    screen, _failures = report(db1=answer(*many, total=4000))
    assert sum("-backup-" in line for line in screen.splitlines()) == 20
    assert "4,000 backups. The newest 20 of each database are shown." in screen
    assert "20261101T" not in screen


MADE = {
    "id": BACKUP["id"],
    "backup": {
        "id": BACKUP["id"],
        "type": "full",
        "database": "hospital",
        "engine": "pg_dump",
        "seconds": 8.7,
        "members": [{"bytes": 1024}, {"bytes": 1024}],
        "encryption": {"method": "public_key", "recipients": ["A", "B"]},
        "verification": {"level": "read", "ok": True, "seconds": 2.1},
        "snapshot": {"time": AT},
    },
    "removed": [{"id": "x", "why": "not among what is kept (7 daily)"}],
    "kept": [{"id": "y"}, {"id": "z"}],
    "record": "/var/lib/x.json",
}


def test_what_a_backup_came_to() -> None:
    assert backup_text(MADE, "db1") == [
        "20261122T020000Z-backup-3fa9 is complete: full of hospital, made on db1 with pg_dump.",
        "2.0 KiB in 8.70 s, encrypted for 2 keys, verified (read back to its end in 2.10 s).",
        f"It restores to {AT}.",
        "x was removed: not among what is kept (7 daily).",
        "2 earlier backups kept.",
        "Record: /var/lib/x.json",
    ]
    bare = {"backup": {**t.cast(dict[str, t.Any], MADE["backup"]), "encryption": {}, "verification": None}}
    assert "NOT encrypted, NOT verified." in backup_text(bare, "db1")[1]
    deep = {**t.cast(dict[str, t.Any], MADE["backup"]), "verification": {"level": "deep", "ok": True, "seconds": 2.1}}
    assert "verified (restored and compared in 2.10 s)" in backup_text({"backup": deep}, "db1")[1]
    with pytest.raises(AnsibleFilterError, match="was given str"):
        backup_text("x", "db1")


def test_what_a_backup_would_come_to() -> None:
    plan = {"stores": ["/srv", "s3://x"], "estimate": {"bytes": 2048, "seconds": 8.7, "based_on": "an earlier one"}}
    removed = [{"id": str(number), "why": "old"} for number in range(25)]
    lines = backup_text({"id": "X", "plan": plan, "backup": None, "removed": removed, "kept": []}, "db1")
    assert lines[:3] == [
        "db1 would make X.",
        "About 2.0 KiB in 8.70 s, by an earlier one.",
        "It would go to /srv, s3://x.",
    ]
    assert "0 would be removed: old." in lines
    assert "So would 5 more." in lines


def test_what_a_verification_came_to() -> None:
    def result(**found: t.Any) -> dict[str, t.Any]:
        return {"id": "X", "store": "/srv", "verification": {"ok": True, "level": "read", "seconds": 2.1, **found}}

    answers = {
        "db1": {"planned": [{}, {}], "results": [result(), result(level="deep", rows_compared=3)]},
        "db2": {
            "msg": "X is BAD",
            "details": {"results": [result(ok=False, problems=["a", "b"]), result(partial="no key")]},
        },
        "db3": {"planned": [{"id": "X", "store": "/srv"}], "results": []},
        "db4": {"msg": "There is no backup."},
    }
    hostvars: dict[str, t.Any] = {name: {"hms_backup_verify": found} for name, found in answers.items()}
    found = verify_report([*answers, "db5"], {**hostvars, "db5": {}})
    assert found["count"] == 3
    assert found["lines"] == [
        "db1: X in /srv was read to its end (2.10 s).",
        "db1: X in /srv was restored, 3 tables compared (2.10 s).",
        "db2: X in /srv is BAD: a; b",
        "db2: X in /srv: the stored bytes are as they were written (2.10 s). Not looked at: no key",
        "db3: X in /srv would be verified.",
        "db4: There is no backup.",
    ]
    with pytest.raises(AnsibleFilterError, match="db9 is no host"):
        verify_report(["db9"], {})


def test_what_a_drill_came_to() -> None:
    good = {
        "database": "hospital",
        "id": "X",
        "ok": True,
        "seconds": {"load": 41.2, "analyze": 2.2, "validate": 3.0, "assertions": 0.5},
        "restore_seconds": 47.1,
        "bytes_per_second": 2 * 1024 * 1024,
        "projected_rto_seconds": 48.6,
    }
    bad = {
        "database": "archive",
        "id": "Y",
        "ok": False,
        "seconds": {},
        "restore_seconds": 1.0,
        "problems": ["damaged"],
    }
    failed = drill_report(
        {"msg": "Y did not", "reason": "drill_failed", "details": {"results": [good, bad], "record": "/r"}}
    )
    assert [line.split()[:3] for line in failed[1:3]] == [["hospital", "X", "yes"], ["archive", "Y", "NO"]]
    assert "3.50 s" in failed[1]
    assert failed[3:] == ["Y: damaged", "Record: /r"]
    planned = {"database": "hospital", "id": "X", "store": "/srv", "bytes": 1, "database_bytes": 2, "version": 15}
    (_head, line, told) = drill_report({"results": [], "planned": [{**planned, "problem": "no server"}]})
    assert line.split()[:3] == ["hospital", "X", "/srv"]
    assert told == "X: no server"
    assert drill_report({"msg": "There is no backup."}) == ["There is no backup."]
    with pytest.raises(AnsibleFilterError, match="drill_report takes"):
        drill_report([])


POLICY: dict[str, t.Any] = {
    "cluster": "hospital",
    "environment": "production",
    "database": "hospital",
    "store": {"folder": "/srv/backups", "s3": {"bucket": "hospital"}},
    "encryption": {"passphrase": "x"},
    "notify": {},
    "metrics": {},
    "schedule": {
        "off": {"type": "full", "enabled": False, "verify": "none"},
        "daily": {"type": "full", "cron": "0 2 * * *", "max_age": "30h", "retention": {"days": 30}, "watch": True},
        "structure": {"type": "schema_only", "run_on": "standby"},
        "often": {"type": "incremental", "engine": "pgbackrest", "retention": {"days": 7}},
    },
}


def host(role: str, policy: t.Any = None) -> dict[str, t.Any]:
    """What a host registered of its server and its policy."""
    content = base64.b64encode(json.dumps(POLICY if policy is None else policy).encode()).decode()
    return {"hms_backup_server": {"server_role": role}, "hms_backup_policy": {"content": content}}


def planned(asked: t.Mapping[str, t.Any], **hosts: t.Any) -> dict[str, t.Any]:
    """The plan."""
    known = hosts or {"db2": host("standby"), "db1": host("primary")}
    return backup_plan(list(known), known, asked)


def test_the_policy_is_followed() -> None:
    plan = planned({})
    assert (plan["host"], plan["job"], plan["problem"]) == ("db1", "daily", "")
    assert plan["arguments"] == {
        **{name: POLICY[name] for name in ("cluster", "environment", "database", "store", "encryption")},
        "type": "full",
        "retention": {"days": 30},
    }


@pytest.mark.parametrize(
    ("asked", "name", "expected"),
    [
        ({"type": "schema_only"}, "db2", {"type": "schema_only"}),
        ({"type": "incremental"}, "db1", {"engine": "pgbackrest", "retention": {"days": 7}}),
        ({"type": "differential"}, "db1", {"engine": "pgbackrest"}),
        ({"type": "data_only", "compress": "gzip"}, "db1", {"type": "data_only", "compression": "gzip"}),
        ({"host": "db2"}, "db2", {"type": "full"}),
        ({"verify": "deep", "database": "archive"}, "db1", {"verify": "deep", "database": "archive"}),
        ({"upload": "false"}, "db1", {"store": {"folder": "/srv/backups"}}),
        ({"upload": "yes"}, "db1", {"store": POLICY["store"]}),
        ({"encrypt": True, "engine": "pg_dump"}, "db1", {"engine": "pg_dump", "encryption": {"passphrase": "x"}}),
    ],
)
def test_what_is_asked_for_comes_first(asked: dict[str, t.Any], name: str, expected: dict[str, t.Any]) -> None:
    plan = planned(asked)
    assert (plan["host"], plan["problem"]) == (name, "")
    assert {key: plan["arguments"].get(key) for key in expected} == expected


def test_not_to_be_encrypted() -> None:
    assert "encryption" not in planned({"encrypt": "false"})["arguments"]


@pytest.mark.parametrize(
    ("asked", "changes", "words"),
    [
        ({"type": "all"}, {}, "type=all is not known"),
        ({"upload": "maybe"}, {}, "upload=maybe is neither true nor false"),
        ({"encrypt": "true"}, {"encryption": {}}, "the policy names neither recipients nor a passphrase"),
        ({"upload": "true"}, {"store": {"folder": "/srv"}}, "the policy names no bucket"),
        ({"upload": "false"}, {"store": {"s3": {}}}, "the policy names no folder besides"),
        ({"type": "incremental", "upload": "true"}, {}, "upload can't be chosen for pgBackRest"),
        ({"type": "incremental", "encrypt": "true"}, {}, "encrypt can't be chosen for pgBackRest"),
        ({"host": "db9"}, {}, "db9 is not a database host; these are: db1"),
    ],
)
def test_what_can_not_be_done_is_told(asked: dict[str, t.Any], changes: dict[str, t.Any], words: str) -> None:
    plan = planned(asked, db1=host("primary", {**POLICY, **changes}))
    assert plan["host"] == ""
    assert words in plan["problem"]


def test_nobodys_turn() -> None:
    plan = planned({}, db1=host("unknown"), db2=host("standby"), db3={}, db4=host("primary", []))
    assert plan["problem"].startswith(
        "No host can make this backup: db1 is unknown, and it is the primary's turn; db2 is standby, and it is the"
        " primary's turn; db3 has no backup policy or can't be reached; db4 has no backup policy"
    )
    with pytest.raises(AnsibleFilterError, match="can't be asked for color"):
        planned({"color": "red"})
