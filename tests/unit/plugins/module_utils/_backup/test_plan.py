# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import dataclasses
import datetime
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.clients import Client, Clients
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Compression, Encryption
from ansible_collections.hms.postgres.plugins.module_utils._artifact.staging import StagingFacts
from ansible_collections.hms.postgres.plugins.module_utils._backup import estimate as estimating
from ansible_collections.hms.postgres.plugins.module_utils._backup.facts import (
    DatabaseFacts,
    Relation,
    RoleFacts,
    ServerFacts,
    SourceFacts,
)
from ansible_collections.hms.postgres.plugins.module_utils._backup.model import Wish
from ansible_collections.hms.postgres.plugins.module_utils._backup.plan import (
    BackupPlan,
    Facts,
    StoreFacts,
    clock_is_behind,
    later_id,
    plan_backup,
    refuse,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import Refused
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec

ID = "20261122T020000Z-backup-3fa9"
GB = 1_000_000_000


def wish(**changes: t.Any) -> Wish:
    """A full backup, encrypted with a passphrase."""
    values: dict[str, t.Any] = {
        "cluster": "c",
        "environment": "production",
        "connection": ConnectionParams(host="/run", dbname="hospital"),
        "stores": (FolderSpec("/srv"),),
        "state_dir": "/var/lib/x",
        "encryption": Encryption(passphrase="p"),
        **changes,
    }
    return Wish(**values)


def clients(major: int = 15) -> Clients:
    """Programs of one version."""
    one = Client("/usr/bin/pg_dump", f"{major}.3", major)
    return Clients(one, one, one)


def facts(*, source: dict[str, t.Any] | None = None, role: t.Any = None, **changes: t.Any) -> Facts:
    """A server of version 15 with 10 GB, and a store with much room."""
    seen = SourceFacts(
        now=datetime.datetime(2026, 11, 22, 2, tzinfo=datetime.timezone.utc),
        server=ServerFacts(150018, "15.18", "7", 1, False, 6400),
        database=DatabaseFacts("hospital", 10 * GB, "UTF8", "C", "C", "c"),
        role=role or RoleFacts("postgres", superuser=True, createdb=True),
        relations=(Relation(1, "public", "patients", "r"), Relation(2, "public", "s", "S")),
    )
    values: dict[str, t.Any] = {
        "source": dataclasses.replace(seen, **(source or {})),
        "clients": clients(),
        "stores": (StoreFacts("/srv", free=100 * GB),),
        "server_id": ID,
        **changes,
    }
    return Facts(**values)


def planned(seen: Facts | None = None, **changes: t.Any) -> BackupPlan:
    """The plan."""
    return plan_backup(wish(**changes), seen or facts(), identifier=ID)


def rules(made: BackupPlan) -> list[str]:
    """What is refused."""
    return [refusal.rule for refusal in made.refusals]


def standby(seen: Facts) -> Facts:
    """The same, of a standby."""
    server = dataclasses.replace(seen.source.server, is_standby=True)
    return dataclasses.replace(seen, source=dataclasses.replace(seen.source, server=server))


@pytest.mark.parametrize(
    ("changes", "names"),
    [
        ({}, "properties.json.zst.gpg globals.sql.zst.gpg schema.dump.zst.gpg data.dump.zst.gpg"),
        ({"globals": False}, "properties.json.zst.gpg schema.dump.zst.gpg data.dump.zst.gpg"),
        ({"type": "schema_only"}, "properties.json.zst.gpg globals.sql.zst.gpg schema.dump.zst.gpg"),
        ({"type": "data_only", "compression": Compression("gzip")}, "data.dump.gz.gpg"),
        (
            {"format": "plain", "compression": Compression("lz4"), "encryption": Encryption(), "globals": False},
            "properties.json.lz4 schema.dump.lz4 data.sql.lz4",
        ),
        ({"type": "data_only", "compression": Compression("none"), "encryption": Encryption()}, "data.dump"),
        ({"type": "data_only", "format": "directory", "staging_dir": "/s"}, "data.tar.zst.gpg"),
    ],
)
def test_members(changes: dict[str, t.Any], names: str) -> None:
    made = planned(**changes)
    assert " ".join(member.name for member in made.members) == names
    assert made.as_dict(wish(**changes))["members"] == names.split()
    assert rules(made) == []
    refuse(made)


NOBODY = RoleFacts("reader", superuser=False, createdb=False)
STAGING = StagingFacts("/s", free=12 * GB)
DIRECTORY: dict[str, t.Any] = {"format": "directory", "staging_dir": "/s"}
SHUT = Relation(3, "public", "shut", "r", readable=False)
HIDDEN = Relation(4, "public", "hidden", "r", filtered=True)


@pytest.mark.parametrize(
    ("seen", "changes", "expected"),
    [
        (facts(clients=clients(14)), {}, ["version_mismatch"]),
        (facts(clients=clients(16)), {}, ["version_mismatch"]),
        (facts(), {"format": "directory"}, ["staging_missing"]),
        (facts(), {"format": "directory", "type": "schema_only"}, []),
        (facts(staging=STAGING), DIRECTORY, []),
        (facts(staging=STAGING), {**DIRECTORY, "jobs": 8}, []),
        (facts(staging=dataclasses.replace(STAGING, free=10 * GB)), DIRECTORY, ["staging_full"]),
        (facts(staging=dataclasses.replace(STAGING, free=None)), DIRECTORY, []),
        (
            facts(staging=StagingFacts("/s", problem=Refused("x", reason="staging_unusable"))),
            DIRECTORY,
            ["staging_unusable"],
        ),
        (facts(staging=STAGING), {**DIRECTORY, "staging_dir": "/srv/../srv/s"}, ["staging_in_store"]),
        (facts(staging=STAGING), {**DIRECTORY, "staging_dir": "/srvs"}, []),
        (facts(), {"jobs": 2}, ["jobs_need_directory"]),
        (facts(source={"relations": (SHUT,)}), {}, ["no_select"]),
        (facts(source={"relations": (SHUT,)}), {"type": "schema_only"}, ["no_select"]),
        (facts(source={"relations": (HIDDEN,)}), {}, ["row_security"]),
        (facts(source={"relations": (HIDDEN,)}), {"type": "schema_only"}, []),
        (facts(source={"unreadable_large_objects": 3}), {}, ["no_select"]),
        (facts(source={"unreadable_large_objects": 3}), {"type": "schema_only"}, []),
        (facts(role=NOBODY), {"role_passwords": True}, ["no_superuser"]),
        (facts(role=NOBODY), {"role_passwords": True, "type": "data_only"}, []),
        (facts(role=NOBODY), {"role_passwords": True, "globals": False}, []),
        (facts(), {"role_passwords": True}, []),
        (facts(role=NOBODY), {"verify": "deep"}, ["no_createdb"]),
        (facts(), {"verify": "deep", "type": "data_only"}, ["deep_needs_schema"]),
        (facts(), {"verify": "deep", "format": "plain"}, ["deep_needs_archive"]),
        (standby(facts()), {"verify": "deep"}, ["deep_needs_primary"]),
        (facts(scratch_free=12 * GB), {"verify": "deep"}, ["no_room_for_scratch"]),
        (facts(scratch_free=12 * GB), {}, []),
        (facts(scratch_free=14 * GB), {"verify": "deep"}, []),
        (facts(encryption_problem=Refused("no key", reason="recipient_unknown")), {}, ["recipient_unknown"]),
        (facts(stores=(StoreFacts("/srv", problem=Refused("gone", reason="no_store")),)), {}, ["no_store"]),
        (facts(stores=(StoreFacts("/srv", free=100_000_000),)), {}, ["store_full"]),
        (facts(stores=(StoreFacts("s3://b", free=None),)), {}, []),
        (facts(stores=(StoreFacts("/srv", free=100_000_000),)), {"type": "schema_only"}, []),
    ],
)
def test_refusals(seen: Facts, changes: dict[str, t.Any], expected: list[str]) -> None:
    assert rules(planned(seen, **changes)) == expected


def test_an_invalid_database() -> None:
    database = dataclasses.replace(facts().source.database, connection_limit=-2)
    assert rules(planned(facts(source={"database": database}))) == ["database_invalid"]


def test_all_refusals_are_told_at_once_and_names_are_few() -> None:
    shut = tuple(Relation(n, "public", f"t{n}", "r", readable=False) for n in range(20))
    made = planned(facts(source={"relations": shut}, clients=clients(14)), format="directory")
    with pytest.raises(Refused) as caught:
        refuse(made)
    error = caught.value
    assert (error.reason, error.state) == ("version_mismatch", "Nothing was touched.")
    assert "public.t11 and 8 more" in error.message
    assert "newer than" in error.message
    assert [one["rule"] for one in error.details["refusals"]] == ["version_mismatch", "staging_missing", "no_select"]


@pytest.mark.parametrize(
    ("seen", "changes", "words"),
    [
        (facts(), {"encryption": Encryption()}, "not encrypted"),
        (facts(stores=(StoreFacts("/srv", free=2 * GB),)), {}, "may need"),
        (facts(source={"large_objects": 200_000}), {}, "200000 large objects"),
        (standby(facts(source={"relations": (Relation(1, "p", "u", "r", unlogged=True),)})), {}, "unlogged"),
        (facts(newest_id="20261122T030000Z-backup-0000"), {}, "set back"),
        (facts(staging=STAGING), DIRECTORY, "lies unencrypted in /s"),
        (
            facts(source={"relations": tuple(Relation(n, "p", f"t{n}", "r") for n in range(3000))}),
            {},
            "max_locks_per_transaction",
        ),
    ],
)
def test_warnings(seen: Facts, changes: dict[str, t.Any], words: str) -> None:
    made = planned(seen, **changes)
    assert rules(made) == []
    assert len(made.warnings) == 1
    assert words in made.warnings[0]


def test_whoever_dumps_to_a_disk_is_told_all_of_it() -> None:
    beside = dataclasses.replace(STAGING, beside_server=True)
    warnings = planned(facts(staging=beside), verify="deep", **DIRECTORY).warnings
    assert [
        word in warning for word, warning in zip(("by the next run only", "once more", "stops the server"), warnings)
    ] == [
        True,
        True,
        True,
    ]


def test_jobs_and_place_are_told() -> None:
    made = planned(facts(staging=STAGING), jobs=3, **DIRECTORY)
    told = made.as_dict(wish(jobs=3, **DIRECTORY))
    assert (told["jobs"], told["staging_dir"], told["format"]) == (3, "/s", "directory")
    assert 1 <= planned(facts(staging=STAGING), **DIRECTORY).as_dict(wish(**DIRECTORY))["jobs"] <= 4
    assert "jobs" not in planned().as_dict(wish())


def test_nothing_to_say() -> None:
    assert planned().warnings == ()


@pytest.mark.parametrize(
    ("newest", "expected", "behind"),
    [
        ("", ID, False),
        ("20261122T015959Z-backup-ffff", ID, False),
        ("20261122T020000Z-backup-0000", "20261122T020001Z-backup-3fa9", False),
        ("20261122T020003Z-backup-0000", "20261122T020004Z-backup-3fa9", False),
        ("20261231T235959Z-backup-0000", "20270101T000000Z-backup-3fa9", True),
    ],
)
def test_ids_only_ever_grow(newest: str, expected: str, behind: bool) -> None:
    assert later_id(ID, newest) == expected
    assert clock_is_behind(ID, newest) is behind


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 bytes"), (999, "999 bytes"), (1500, "1.5 kB"), (2.5e9, "2.5 GB"), (7e12, "7.0 TB")]
)
def test_sizes_for_people(count: float, text: str) -> None:
    assert estimating.size(count) == text


def test_names_are_quoted_where_they_would_be_ambiguous() -> None:
    assert Relation(1, "public", "patients", "r").shown == "public.patients"
    assert Relation(1, "a.b", 'c"d', "r").shown == '"a.b"."c""d"'
    assert Relation(1, "public", "select", "r").quoted == '"public"."select"'
