# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is decided about physical backups: plans, verdicts, shapes, the configuration."""

from __future__ import annotations

import dataclasses
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import (
    pgbackrest_catalog,
    pgbackrest_settings,
    pgbackrest_verify,
)
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Verification
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Compression
from ansible_collections.hms.postgres.plugins.module_utils._artifact.pgbackrest_wal import Continuity, Hole
from ansible_collections.hms.postgres.plugins.module_utils._backup import (
    pgbackrest_engine,
    pgbackrest_retention,
    pgbackrest_stanza,
)
from ansible_collections.hms.postgres.plugins.module_utils._backup.model import Wish
from ansible_collections.hms.postgres.plugins.module_utils._backup.pgbackrest_config import render
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._record import is_id
from ansible_collections.hms.postgres.plugins.module_utils._tools.pgbackrest import BackupSet, Generation, Stanza
from ansible_collections.hms.postgres.tests.unit.plugins import repositories

FAILED = Verification(level="read", ok=False, at="2026-11-22T20:00:00.000Z", seconds=1.5, problems=("a", "b"))
SERVER = pgbackrest_engine.Server(
    is_standby=False,
    version_num=150018,
    system_identifier="77",
    archive_mode="on",
    archive_command="pgbackrest --stanza=hospital archive-push %p",
    segment_size=16777216,
    failing="",
)
WISH = Wish(
    cluster="hospital",
    environment="production",
    connection=ConnectionParams(host="/run"),
    stores=(),
    state_dir="/state",
    engine="pgbackrest",
)


def backup(label: str, type_: str = "full", *, prior: str = "", error: bool = False, **notes: str) -> BackupSet:
    """A backup in the repository; what it refers to is what it builds on."""
    return repositories.backup(
        label,
        3,
        4,
        type=type_,
        start=1795376689 + len(label),
        stop=1795376699 + len(label),
        prior=prior,
        reference=(prior,) if prior else (),
        bytes=200,
        stored_bytes=20,
        chain_bytes=30,
        error=error,
        annotations={key.replace("_", "-"): value for key, value in notes.items()},
    )


def stanza(*backups: BackupSet) -> Stanza:
    """A repository with these."""
    generation = Generation(1, "15-1", "000000010000000000000001", "00000001000000000000000B", "77", "15")
    return Stanza("hospital", 0, "ok", "aes-256-cbc", False, backups, (generation,))


def facts(*backups: BackupSet) -> pgbackrest_engine.Facts:
    """What there is."""
    return pgbackrest_engine.Facts((2, 45), SERVER, stanza(*backups))


FULL, DIFF, INCR = backup("F"), backup("F_D", "diff", prior="F"), backup("F_D_I", "incr", prior="F_D")
BAD = pgbackrest_catalog.note_of(FAILED)


class TestPlan:
    @pytest.mark.parametrize(
        ("asked", "there", "made", "base", "reason"),
        [
            ("full", (), "full", "", ""),
            ("full", (FULL,), "full", "", ""),
            ("differential", (), "full", "", "no full backup"),
            ("incremental", (), "full", "", "no full backup"),
            ("differential", (FULL, DIFF), "differential", "F", ""),
            ("incremental", (FULL, DIFF), "incremental", "F_D", ""),
            ("incremental", (FULL, DIFF, INCR), "incremental", "F_D_I", ""),
            ("incremental", (backup("F", hms_verification=BAD), DIFF), "full", "", "F failed its verification"),
            ("incremental", (FULL, backup("F_D", "diff", prior="F", error=True)), "full", "", "damaged pages"),
            ("differential", (FULL, backup("F_D", "diff", prior="F", error=True)), "differential", "F", ""),
        ],
    )
    def test_what_is_made(self, asked: str, there: tuple[BackupSet, ...], made: str, base: str, reason: str) -> None:
        found = pgbackrest_engine.plan(asked, facts(*there))
        assert (found.type, found.base) == (made, base)
        assert reason in found.reason
        assert bool(found.reason) == bool(reason)

    def test_the_last_of_its_kind_is_the_estimate(self) -> None:
        found = pgbackrest_engine.plan("full", facts(FULL, INCR))
        assert (found.bytes_estimate, found.seconds_estimate) == (20, 10.0)
        assert pgbackrest_engine.plan("full", facts()).bytes_estimate is None

    def test_what_builds_on_another_is_compressed_alike(self) -> None:
        planned = pgbackrest_engine.Plan("incremental", base="F")
        wish = dataclasses.replace(WISH, compression=Compression("lz4", threads=2))
        assert pgbackrest_engine.options_for(wish, planned) == ["--process-max=2"]
        known = facts(backup("F", hms_compression="zstd:3"))
        notes = pgbackrest_engine.notes_for(wish, planned, known, identifier="i", by="b", host="h")
        assert notes["hms-compression"] == "zstd:3"

    @pytest.mark.parametrize(
        ("compression", "options"),
        [
            (Compression(), ["--compress-type=zst", "--compress-level=3"]),
            (Compression("gzip", 6), ["--compress-type=gz", "--compress-level=6"]),
            (Compression("none"), ["--compress-type=none"]),
        ],
    )
    def test_compression(self, compression: Compression, options: list[str]) -> None:
        wish = dataclasses.replace(WISH, compression=compression)
        assert pgbackrest_engine.options_for(wish, pgbackrest_engine.Plan("full")) == options


class TestVerdict:
    REPORT = (
        "stanza: hospital\nstatus: error\n"
        "  archiveId: 15-1, total WAL checked: 10, total valid WAL: 9\n    missing: 0, checksum invalid: 0\n"
        "  backup: F, status: invalid, total files checked: 961, total valid files: 960\n    checksum invalid: 1\n"
        "  backup: F_D, status: valid, total files checked: 964, total valid files: 964\n"
    )
    SEGMENT = "000000010000000000000003"
    LOG = (
        "INFO: verify command begin 2.45: --no-secret\n"
        "INFO: invalid checksum 'F/pg_data/global/4182.zst'\n"
        f"INFO: invalid result 15-1/0000000100000000/{SEGMENT}-{'a' * 40}.zst: [29] zst error\n"
        "INFO: stanza: hospital\n"
    )

    def test_a_report_is_read(self) -> None:
        found = pgbackrest_verify.parse(self.REPORT, self.LOG)
        assert found.status == "error"
        assert (found.backups["F"].ok, found.backups["F_D"].ok) == (False, True)
        assert found.wal == {"15-1": (10, 9)}
        assert found.damaged == {self.SEGMENT}
        assert len(found.named) == 2

    def test_nothing_said_is_nothing_proven(self) -> None:
        found = pgbackrest_verify.parse("", "")
        assert pgbackrest_verify.problems_of(FULL, found, {}) == ["pgBackRest's verify says nothing about F"]
        assert pgbackrest_verify.problems_of_all(found, Continuity()) == ["pgBackRest's verify says nothing"]

    def test_what_speaks_against_a_backup(self) -> None:
        found = pgbackrest_verify.parse(self.REPORT, self.LOG)
        assert pgbackrest_verify.problems_of(DIFF, found, {}) == []
        first, second = pgbackrest_verify.problems_of(FULL, found, {})
        assert "1 of 961 files" in first
        assert "4182" in second
        assert "checksums" in pgbackrest_verify.problems_of(dataclasses.replace(DIFF, error=True), found, {})[0]
        assert pgbackrest_verify.problems_of(DIFF, found, {"F_D": "it lacks WAL"}) == ["it lacks WAL"]

    def test_what_speaks_against_the_repository(self) -> None:
        found = pgbackrest_verify.parse(self.REPORT, self.LOG)
        told = pgbackrest_verify.problems_of_all(found, Continuity(holes=(Hole(1, "X", "X", 1),), problems=("odd",)))
        assert told[0].startswith("WAL segment X")
        assert "odd" in told
        assert "1 of 10 WAL segments of 15-1 are damaged" in told
        assert "the backup F is invalid" in told

    def test_a_failed_one_raises(self) -> None:
        with pytest.raises(HmsError, match="a; b") as failed:
            pgbackrest_engine.judge(FAILED, "F")
        assert failed.value.reason == "verification_failed"


class TestCatalog:
    def test_one_made_by_hand_has_an_id_too(self) -> None:
        assert is_id(pgbackrest_catalog.identify(FULL))
        assert pgbackrest_catalog.identify(FULL) == pgbackrest_catalog.identify(backup("F"))
        assert pgbackrest_catalog.identify(backup("F", hms_id="../../etc")) == pgbackrest_catalog.identify(FULL)
        ours = "20261122T154500Z-backup-aaaa"
        assert pgbackrest_catalog.identify(backup("F", hms_id=ours)) == ours

    def test_verifications_are_kept_as_notes(self) -> None:
        assert pgbackrest_catalog.verification_of(backup("F", hms_verification=BAD)) == FAILED
        for rubbish in ("{", "[]", '{"level": 1}', '{"nothing": "known"}'):
            assert pgbackrest_catalog.verification_of(backup("F", hms_verification=rubbish)) is None

    def test_long_problems_are_cut(self) -> None:
        many = dataclasses.replace(FAILED, problems=tuple("x" * 1000 for _number in range(50)))
        assert len(pgbackrest_catalog.note_of(many)) < 1500

    def test_the_shape(self) -> None:
        listed = pgbackrest_catalog.entries(
            stanza(FULL, DIFF, backup("G_I", "incr", prior="G")), cluster="c", environment="e", database="d"
        )
        full, diff, orphan = listed
        assert (full.type, diff.type, orphan.type) == ("full", "differential", "incremental")
        assert (full.parent, diff.parent, orphan.parent) == ("", full.id, "G")
        assert (full.bytes, full.contents["label"], full.encryption["method"]) == (20, "F", "aes-256-cbc")
        assert full.server["timeline"] == 1


class TestRetention:
    def test_dependents_go_first(self) -> None:
        there = stanza(FULL, DIFF, INCR)
        ids = [pgbackrest_catalog.identify(one) for one in there.backups]
        assert [label for _id, label in pgbackrest_retention.order(there, ids)] == ["F_D_I", "F_D", "F"]
        assert pgbackrest_retention.order(there, ["20261122T154500Z-backup-aaaa"]) == []

    def test_what_is_needed_stays(self) -> None:
        with pytest.raises(Refused, match="F_D, which is kept"):
            pgbackrest_retention.order(stanza(FULL, DIFF), [pgbackrest_catalog.identify(FULL)])


class TestSettings:
    def test_defaults_follow_from_the_cluster(self) -> None:
        found = pgbackrest_settings.settings_from({"config": None}, cluster="clinic")
        assert found == pgbackrest_settings.Settings("/etc/hms-postgres/clinic/pgbackrest.conf", "clinic")

    @pytest.mark.parametrize("wrong", [{"path": "/x"}, {"repo": 0}, {"repo": True}, {"repo": "1"}, {"stanza": ""}])
    def test_what_makes_no_sense_is_refused(self, wrong: dict[str, t.Any]) -> None:
        with pytest.raises(HmsError) as refused:
            pgbackrest_settings.settings_from(wrong, cluster="clinic")
        assert refused.value.reason == "bad_config"


class TestStanza:
    @pytest.mark.parametrize(
        ("server", "missing", "check", "expected"),
        [
            (SERVER, (), True, ["check"]),
            (SERVER, (1,), True, ["create", "check"]),
            (SERVER, (1, 2), False, ["create"]),
            (dataclasses.replace(SERVER, is_standby=True), (1,), True, ["create"]),
            (dataclasses.replace(SERVER, is_standby=True), (), True, []),
            (None, (1,), True, ["create"]),
        ],
    )
    def test_the_plan(
        self, server: pgbackrest_engine.Server | None, missing: tuple[int, ...], check: bool, expected: list[str]
    ) -> None:
        found = pgbackrest_stanza.plan(pgbackrest_stanza.Found(server, missing), check=check)
        assert [action.what for action in found] == expected


class Checks:
    """A driver whose checks end one after the other as it is told."""

    def __init__(self, *errors: str) -> None:
        self.errors = list(errors)
        self.timeouts: list[float] = []

    def check(self, *, timeout: float) -> None:
        self.timeouts.append(timeout)
        error = self.errors.pop(0)
        if error:
            raise HmsError(error)


class TestProof:
    LATE = "ERROR: [082]: WAL segment 2 was not archived before the 30000ms timeout"

    @pytest.mark.parametrize("errors", [[""], [LATE, ""]])
    def test_an_archiver_that_slept_is_woken_by_a_second_check(self, errors: list[str]) -> None:
        driver = Checks(*errors)
        pgbackrest_stanza.prove(t.cast("t.Any", driver), wait_seconds=60.0)
        assert driver.timeouts == [30.0] * len(errors)

    @pytest.mark.parametrize(("errors", "asked"), [([LATE, LATE], 2), (["ERROR: [028]: wrong stanza"], 1)])
    def test_wal_that_does_not_arrive_is_an_error(self, errors: list[str], asked: int) -> None:
        driver = Checks(*errors)
        with pytest.raises(HmsError) as failed:
            pgbackrest_stanza.prove(t.cast("t.Any", driver), wait_seconds=60.0)
        assert (failed.value.phase, len(driver.timeouts)) == ("check", asked)
        assert "does not arrive" in failed.value.state


class TestConfiguration:
    DATA: t.ClassVar[dict[str, t.Any]] = {
        "stanza": "hospital",
        "repositories": [{"folder": "/srv/backups"}],
        "data_directory": "/data",
        "port": 5432,
        "socket_directory": "/run",
        "log_directory": "/log",
        "lock_directory": "/lock",
        "spool_directory": "/spool",
    }
    S3: t.ClassVar[dict[str, t.Any]] = {
        "bucket": "backups",
        "prefix": "physical",
        "endpoint_url": "https://s3:9000",
        "region": "lab",
        "addressing_style": "path",
        "ca_bundle": "/ca.crt",
        "access_key_id": "id",
        "secret_access_key": "key",
    }

    def test_a_folder(self) -> None:
        lines = render(self.DATA).splitlines()
        assert lines[0] == "[global]"
        assert {"repo1-path=/srv/backups", "repo1-retention-full=9999999", "expire-auto=n", "repo1-bundle=y"} <= set(
            lines
        )
        assert lines[-4:] == ["[hospital]", "pg1-path=/data", "pg1-port=5432", "pg1-socket-path=/run"]
        assert not any("cipher" in line for line in lines)

    def test_a_bucket_beside_a_folder(self) -> None:
        data = {**self.DATA, "repositories": [{"folder": "/a"}, {"s3": self.S3}], "passphrase": "geheim"}
        lines = set(render(data).splitlines())
        assert {"repo1-cipher-pass=geheim", "repo2-cipher-type=aes-256-cbc"} <= lines
        assert {
            "repo2-type=s3",
            "repo2-path=/physical",
            "repo2-s3-bucket=backups",
            "repo2-s3-endpoint=s3",
            "repo2-storage-port=9000",
            "repo2-s3-uri-style=path",
            "repo2-storage-ca-file=/ca.crt",
            "repo2-s3-key=id",
            "repo2-s3-key-secret=key",
        } <= lines

    def test_without_keys_the_instances_role_is_asked(self) -> None:
        bare = {"bucket": "backups", "region": "eu-central-1"}
        lines = set(render({**self.DATA, "repositories": [{"s3": bare}]}).splitlines())
        assert {"repo1-s3-key-type=auto", "repo1-s3-endpoint=s3.eu-central-1.amazonaws.com", "repo1-path=/"} <= lines

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"stanza": ""}, "stanza is missing"),
            ({"stanza": "a b"}, "can't be a stanza"),
            ({"surprise": 1}, "no surprise"),
            ({"passphrase": "two\nlines"}, "longer than a line"),
            ({"passphrase": " spaced "}, "spaces at an end"),
            ({"options": {"archive-push-queue-max": "1GB"}}, "throws WAL away"),
            ({"options": {"repo1-block": True}}, "not proven"),
            ({"options": {"repo1-cipher-pass": "x"}}, "set by passphrase"),
            ({"options": {"Not an option": 1}}, "no option"),
            ({"repositories": [{"s3": {**S3, "endpoint_url": "http://s3"}}]}, "TLS only"),
            ({"repositories": [{"s3": {"bucket": "backups", "endpoint_url": "https://s3"}}]}, "region"),
            ({"repositories": [{"s3": {**S3, "storage_class": "GLACIER"}}]}, "no storage_class"),
            ({"repositories": [{"ftp": {}}]}, "ftp"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, changes: dict[str, t.Any], message: str) -> None:
        with pytest.raises(HmsError, match=message) as refused:
            render({**self.DATA, **changes})
        assert refused.value.reason == "bad_config"
        assert "two\nlines" not in refused.value.message
