# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the info module returns, and which backups a later verification takes, over stores in memory."""

from __future__ import annotations

import contextlib
import json
import pathlib
import types
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import (
    pgbackrest_catalog,
    pgbackrest_settings,
    pgbackrest_verify,
    sources,
)
from ansible_collections.hms.postgres.plugins.module_utils._artifact.catalog import load_store
from ansible_collections.hms.postgres.plugins.module_utils._artifact.catalog_parse import history_to_bytes
from ansible_collections.hms.postgres.plugins.module_utils._artifact.clients import Client, Clients
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Manifest, Verification
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Encryption
from ansible_collections.hms.postgres.plugins.module_utils._artifact.pgbackrest_catalog import (
    NOTE_VERIFICATION,
    note_of,
)
from ansible_collections.hms.postgres.plugins.module_utils._artifact.pgbackrest_wal import Continuity, Window
from ansible_collections.hms.postgres.plugins.module_utils._backup import info as infos
from ansible_collections.hms.postgres.plugins.module_utils._backup import reverify
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._module import Result
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import (
    NOW,
    MemoryStore,
    ago,
    entry,
    manifest,
    proven,
)
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.test_job import StandingClock

FOLDER, BUCKET = "/srv/backups", "s3://hospital"
STORE = {"folder": FOLDER, "s3": {"bucket": "hospital"}}
BASE = {"cluster": "hospital", "environment": "staging", "database": "hospital", "store": STORE}


class World:
    """Two stores, a repository of pgBackRest's, a host's file."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: pathlib.Path) -> None:
        self.config = folder
        self.stores = {FOLDER: MemoryStore(FOLDER), BUCKET: MemoryStore(BUCKET)}
        self.physical: list[Manifest] = []
        self.broken = False
        self.continuity = Continuity()
        monkeypatch.setattr(sources, "open_store", self._open)
        monkeypatch.setattr(pgbackrest_settings, "driver", lambda _settings, _runner: self)
        monkeypatch.setattr(pgbackrest_catalog, "entries", lambda _stanza, **_of: self.physical)
        monkeypatch.setattr(pgbackrest_catalog, "identify", lambda backup: backup.identifier)
        monkeypatch.setattr(pgbackrest_verify, "continuity", self._continuity)

    def _open(self, spec: t.Any) -> MemoryStore:
        return self.stores[FOLDER if sources.kind_of(spec) == "folder" else BUCKET]

    place = "pgbackrest hospital repo1"

    def info(self) -> t.Any:
        """pgBackRest's driver: its catalog."""
        if self.broken:
            raise HmsError("no stanza", reason="no_stanza")
        backups = [
            types.SimpleNamespace(
                label=one.contents["label"],
                identifier=one.id,
                annotations={NOTE_VERIFICATION: note_of(one.verification)} if one.verification else {},
            )
            for one in self.physical
        ]
        return types.SimpleNamespace(backups=backups)

    def _continuity(self, *_what: t.Any, **_how: t.Any) -> Continuity:
        return self.continuity

    def both(self, made: Manifest) -> Manifest:
        """Store a backup in both stores."""
        for store in self.stores.values():
            store.add(made)
        return made

    def configure(self, **more: t.Any) -> None:
        """Write the host's file."""
        (self.config / "backup.json").write_text(json.dumps({**BASE, **more}))

    def info_of(self, **params: t.Any) -> t.Mapping[str, t.Any]:
        """The info module's values."""
        given = params or {"cluster": "hospital", "environment": "staging", "store": STORE}
        return infos.info(
            given, check_mode=False, runner=SystemRunner(), clock=StandingClock(), asking=self.standby
        ).values

    def standby(self, _wish: t.Any) -> bool:
        """Whether the server is one."""
        if self.broken:
            raise HmsError("no answer")
        return False


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch, tmp_path: pathlib.Path) -> World:
    """An empty one."""
    return World(monkeypatch, tmp_path)


def test_a_backup_in_two_stores_is_one(world: World) -> None:
    made = world.both(manifest(ago(hours=2)))
    world.both(manifest(ago(hours=5), verified=False))
    found = world.info_of()
    assert (found["total"], found["bytes"]) == (2, 16)
    newest, older = found["backups"]
    assert newest["id"] == made.id
    assert newest["age_seconds"] == 7200
    assert newest["verified"]
    assert newest["proof"]["level"] == "read"
    assert newest["restorable_from"] == newest["restorable_to"] == made.started
    assert newest["copies"] == [
        {"store": FOLDER, "verified": True, "bad": False},
        {"store": BUCKET, "verified": True, "bad": False},
    ]
    assert (older["verified"], older["proof"], older["verification"]) == (False, None, None)
    assert (found["freshness"], found["fresh"], found["jobs"]) == ([], True, [])


def test_a_bad_copy_does_not_hide_a_good_one(world: World) -> None:
    made = world.both(manifest(ago(hours=2)))
    history = history_to_bytes(made.id, [proven(ago(), ok=False)])
    world.stores[FOLDER].put(made.key("verification.json"), history)
    (found,) = world.info_of()["backups"]
    assert found["verified"]
    assert [copy["bad"] for copy in found["copies"]] == [True, False]


@pytest.mark.parametrize("drilled", [FOLDER, BUCKET])
def test_the_copy_that_came_back_from_a_drill_speaks_for_the_backup(world: World, drilled: str) -> None:
    made = world.both(manifest(ago(hours=2)))
    history = history_to_bytes(made.id, [proven(ago(hours=1), level="restored")])
    world.stores[drilled].put(made.key("verification.json"), history)
    (found,) = world.info_of()["backups"]
    assert found["proof"]["level"] == "restored"
    assert found["restored_at"] == found["proof"]["at"]


def test_a_limit_hides_and_says_so(world: World) -> None:
    for day in range(5):
        world.both(manifest(ago(days=day)))
    found = world.info_of(cluster="hospital", store=STORE, limit=2)
    assert (len(found["backups"]), found["total"]) == (2, 5)


def test_the_hosts_file_says_where_and_how_young(world: World) -> None:
    world.configure(schedule={"daily": {"cron": "0 2 * * *"}, "other": {"database": "archive", "max_age": "1h"}})
    world.both(manifest(ago(hours=2)))
    found = world.info_of(config_directory=str(world.config))
    assert [one["ok"] for one in found["freshness"]] == [True, False]
    assert not found["fresh"]
    assert [job["name"] for job in found["jobs"]] == ["daily", "other"]
    assert world.info_of(config_directory=str(world.config), database="hospital")["fresh"]


def test_the_servers_part(world: World) -> None:
    world.configure()
    where = {"config_directory": str(world.config), "gather": ["server"]}
    assert world.info_of(**where) == {
        "at": "2026-11-22T12:00:00.000Z",
        "cluster": "hospital",
        "environment": "staging",
        "server_role": "primary",
    }
    world.broken = True
    assert world.info_of(**where)["server_role"] == "unknown"
    with pytest.raises(HmsError, match=r"stands in backup\.json only") as raised:
        world.info_of(cluster="hospital", store=STORE, gather=["server"])
    assert raised.value.reason == "bad_config"


def physical(world: World, **more: t.Any) -> Manifest:
    """A backup of pgBackRest's."""
    made = manifest(ago(hours=2), engine="pgbackrest", contents={"label": "20261122-100000F"}, **more)
    world.physical = [made]
    return made


def test_pgbackrest_is_listed_with_what_wal_adds(world: World) -> None:
    made = physical(world)
    start = int(ago(hours=2).timestamp())
    window = Window("20261122-100000F", start, "0" * 24, int(NOW.timestamp()))
    world.continuity = Continuity(windows=(window, Window("unknown", start, "", None)))
    where: dict[str, t.Any] = {"cluster": "hospital", "pgbackrest": {}}
    (found,) = world.info_of(**where)["backups"]
    assert found["id"] == made.id
    assert found["copies"][0]["store"] == "pgbackrest hospital repo1"
    assert (found["restorable_from"], found["restorable_to"]) == (
        "2026-11-22T10:00:00.000Z",
        "2026-11-22T12:00:00.000Z",
    )
    world.continuity = Continuity(windows=(Window("20261122-100000F", start, "", None),), problems=("odd",), holes=())
    seen = world.info_of(**where)
    assert seen["backups"][0]["restorable_to"] is None
    assert [(one["kind"], one["what"]) for one in seen["problems"]] == [("wal_hole", "odd")]


def test_what_can_not_be_reached_is_told_while_something_can(world: World) -> None:
    world.both(manifest(ago()))
    world.broken = True
    found = world.info_of(cluster="hospital", store=STORE, pgbackrest={})
    assert [(one["kind"], one["store"]) for one in found["problems"]] == [("unreachable", "pgbackrest hospital repo1")]
    with pytest.raises(HmsError, match="no stanza"):
        world.info_of(cluster="hospital", pgbackrest={})
    world.broken = False
    world.stores[FOLDER].broken["list"] = HmsError("gone")
    assert len(world.info_of()["problems"]) == 1
    world.stores[BUCKET].broken["list"] = HmsError("gone too")
    with pytest.raises(HmsError, match="gone too"):
        world.info_of()


@pytest.mark.parametrize("params", [{"store": STORE}, {"cluster": "hospital"}])
def test_where_nothing_is_said(params: dict[str, t.Any], world: World) -> None:
    with pytest.raises(HmsError, match="is given") as raised:
        world.info_of(**params)
    assert raised.value.reason == "bad_config"


def test_a_host_with_nothing_to_look_at(world: World) -> None:
    (world.config / "backup.json").write_text('{"cluster": "hospital", "environment": "staging"}')
    with pytest.raises(HmsError, match="has no job and names no store"):
        world.info_of(config_directory=str(world.config))


# verification


class Ring:
    """A keyring that opens everything, or nothing."""

    opens = True

    def can_read(self, _encryption: t.Any) -> bool:
        """Whether it does."""
        return self.opens


@pytest.fixture
def proofs(monkeypatch: pytest.MonkeyPatch) -> dict[str, Verification]:
    """What the verification of each store finds; a good one where nothing is said."""
    found: dict[str, Verification] = {}

    def check(store: MemoryStore, _manifest: t.Any, _ring: t.Any, **_how: t.Any) -> t.Any:
        return types.SimpleNamespace(verification=found.get(store.name, proven(NOW)))

    client = Client("/usr/bin/x", "15.18", 15)
    monkeypatch.setattr(reverify, "find_clients", lambda *_what: Clients(client, client, client))
    monkeypatch.setattr(reverify, "reading_keyring", lambda *_what, **_how: contextlib.nullcontext(Ring()))
    monkeypatch.setattr(reverify, "verify_artifact", check)
    return found


def verified(world: World, *, check_mode: bool = False, said: list[str] | None = None, **params: t.Any) -> Result:
    """The verify module's result."""
    world.configure()
    lines = [] if said is None else said
    given = {"config_directory": str(world.config), **params}
    return reverify.verify(given, check_mode=check_mode, runner=SystemRunner(), clock=StandingClock(), say=lines.append)


def test_the_newest_of_each_kind_in_every_store(world: World, proofs: dict[str, Verification]) -> None:
    assert not proofs
    world.both(manifest(ago(days=2)))
    full, schema = world.both(manifest(ago(days=1))), world.both(manifest(ago(), type_="schema_only"))
    planned = verified(world, check_mode=True)
    assert planned.changed
    assert [(one["id"], one["store"]) for one in planned.values["planned"]] == [
        *((schema.id, BUCKET), (schema.id, FOLDER)),
        *((full.id, BUCKET), (full.id, FOLDER)),
    ]
    assert full.key("verification.json") not in world.stores[FOLDER].objects
    said: list[str] = []
    done = verified(world, said=said)
    assert len(done.values["results"]) == 4
    assert said[-1] == f"{full.id} in {FOLDER} holds (read to its end, 1.0 s)"
    (found,) = [one for one in load_store(world.stores[FOLDER], "hospital").entries if one.id == full.id]
    assert len(found.verifications) == 2


def test_a_history_grows_and_one_that_fails_counts(world: World, proofs: dict[str, Verification]) -> None:
    made = world.both(manifest(ago(days=1)))
    verified(world)
    proofs[BUCKET] = proven(NOW, ok=False)
    with pytest.raises(HmsError, match=f"{made.id} in {BUCKET} is BAD: broken") as raised:
        verified(world, id=made.id)
    assert raised.value.reason == "verification_failed"
    assert len(raised.value.details["results"]) == 2
    good, bad = (load_store(store, "hospital").entries[0] for store in world.stores.values())
    assert (len(good.verifications), good.verified) == (3, True)
    assert (len(bad.verifications), bad.verified, bad.bad) == (3, False, True)
    chosen = verified(world, check_mode=True, which="unverified").values["planned"]
    assert [one["store"] for one in chosen] == [BUCKET]
    assert len(verified(world, check_mode=True, which="all").values["planned"]) == 2


def test_a_store_that_does_not_answer_makes_no_backup_bad(world: World, proofs: dict[str, Verification]) -> None:
    made = world.both(manifest(ago(days=1)))
    proofs[FOLDER] = proven(NOW, ok=False)
    world.stores[FOLDER].broken["check"] = Refused("no answer", reason="store_unreachable")
    with pytest.raises(HmsError, match="no answer") as raised:
        verified(world, stores=["folder"])
    assert raised.value.details["results"] == []
    assert made.key("verification.json") not in world.stores[FOLDER].objects


def test_what_could_not_be_looked_at_is_a_remark(world: World, proofs: dict[str, Verification]) -> None:
    world.both(manifest(ago(days=1)))
    proofs[FOLDER] = proven(NOW, partial="no key")
    world.stores[BUCKET].broken["list"] = HmsError("no answer")
    done = verified(world)
    assert any("not looked at: no key" in warning for warning in done.warnings)
    assert any(f"{BUCKET} can't be listed" in warning for warning in done.warnings)


def test_refusals(world: World, proofs: dict[str, Verification], monkeypatch: pytest.MonkeyPatch) -> None:
    assert not proofs
    for params, reason in (
        ({}, "no_backup"),
        ({"id": "x"}, "no_backup"),
        ({"stores": ["pgbackrest"]}, "no_store_here"),
    ):
        with pytest.raises(Refused) as raised:
            verified(world, **params)
        assert raised.value.reason == reason
    world.both(manifest(ago(days=1)))
    monkeypatch.setattr(Ring, "opens", False)
    with pytest.raises(Refused, match="this host has no key that opens it") as raised:
        verified(world, level="deep")
    assert raised.value.reason == "no_key"


def test_what_opens_a_backup() -> None:
    base = {"cluster": "hospital", "store": STORE}
    assert reverify.order_from(base).encryption == Encryption()
    given = {"key_files": ["/run/k"], "passphrase": "x", "passphrase_file": None}
    assert reverify.order_from({**base, "encryption": given}).encryption == Encryption(
        key_files=("/run/k",), passphrase="x"
    )
    assert reverify._encryption({}, [Encryption(recipients=("a",)), Encryption(passphrase="y")]) == Encryption(
        passphrase="y"
    )
    assert reverify.order_from(base).state_dir == "/var/lib/hms-postgres/hospital"


def test_pgbackrest_reads_its_own(
    world: World, proofs: dict[str, Verification], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not proofs
    made = physical(world)
    stored: list[t.Any] = []
    problems: list[str] = []

    def report(_driver: t.Any, **_how: t.Any) -> t.Any:
        found = {"20261122-100000F": proven(NOW)}
        return types.SimpleNamespace(verifications=found, problems=tuple(problems))

    monkeypatch.setattr(pgbackrest_verify, "verify", report)
    monkeypatch.setattr(pgbackrest_verify, "store", lambda _driver, found: stored.append(found))

    def run(level: str) -> Result:
        given = {"cluster": "hospital", "pgbackrest": {}, "level": level}
        return reverify.verify(given, check_mode=False, runner=SystemRunner(), clock=StandingClock())

    done = run("deep")
    assert [one["id"] for one in done.values["results"]] == [made.id]
    assert "read to their end and not restored" in done.warnings[0]
    assert len(stored) == 1
    problems.append("a hole")
    with pytest.raises(HmsError, match="pgbackrest hospital repo1: a hole"):
        run("read")


def test_outcomes_in_words() -> None:
    one = entry(ago())
    told = reverify.Outcome(one.id, "hospital", "pg_dump", "full", "/srv", proven(NOW, level="deep")).told()
    assert told == f"{one.id} in /srv holds (restored and compared, 1.0 s)"
