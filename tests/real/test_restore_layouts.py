# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores by several jobs, and of the directory format, for real: whole, damaged, killed, starved.

After each: the live database is the very one that was there, no half-made one looks whole, no process is left, and no
row lies readable anywhere.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
import stat
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils import _drill_work
from ansible_collections.hms.postgres.tests.real import backup_site, restore_site
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, ROWS, odd_database
from ansible_collections.hms.postgres.tests.real.held import ServerGate
from ansible_collections.hms.postgres.tests.real.lab import Instance, Lab, process_alive, run, until
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite

UNTOUCHED = "The live database was not touched."
NOTHING = "Nothing was touched."
ENCRYPTION = {"passphrase": PASSPHRASE}
MARKER = "Patient-Zero-Marker-4410"
STRANGE = """
CREATE TABLE ends (id int, text text);
INSERT INTO ends VALUES (1, E'\\\\.'), (2, E'\\n\\\\.\\n'), (3, 'COPY public.ends (id, text) FROM stdin;'), (4, NULL),
  (5, E'COPY public.parent (a) FROM stdin;\\n7\\n\\\\.\\n');
CREATE TABLE nothing (id int); CREATE TABLE columnless (); INSERT INTO columnless DEFAULT VALUES;
CREATE TABLE "new\nline" ("a\nb" int); INSERT INTO "new\nline" VALUES (1);
CREATE TABLE made (a int, b int GENERATED ALWAYS AS (a * 2) STORED, c int GENERATED ALWAYS AS IDENTITY PRIMARY KEY);
INSERT INTO made (a) SELECT n FROM generate_series(1, 9) n; CREATE TABLE of_made (c int REFERENCES made);
INSERT INTO of_made VALUES (3), (4);
SELECT lo_unlink(oid) FROM pg_largeobject_metadata;
"""


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """The odd database, a stranger one without large objects, and one whose restore takes a while."""
    instance = module_lab.primary(shared_buffers="64MB")
    odd_database(instance)
    odd_database(instance, "strange")
    backup_site.with_file(instance, "strange", STRANGE)
    instance.sql("CREATE DATABASE large")
    instance.sql(f"CREATE TABLE marked AS SELECT '{MARKER}' AS who FROM generate_series(1, 500)", dbname="large")
    for name in ("notes", "letters"):
        backup_site.big_table(instance, "large", name=name, megabytes=20)
        instance.sql(f"CREATE INDEX ON {name} (md5(body)); CREATE INDEX ON {name} (md5(body || 'x'))", dbname="large")
    gate(instance).before(instance, "large", "notes", "letters")
    place = instance.folder / "work"
    place.mkdir()
    place.chmod(0o711)
    return instance


def gate(server: Instance) -> ServerGate:
    """What the rows of the large database have to pass."""
    return ServerGate(server.folder / "gate")


@pytest.fixture(autouse=True)
def live_untouched(server: Instance) -> t.Iterator[None]:
    """Whatever a test does, the live databases are the same afterwards, and nobody and nothing is left."""
    with restore_site.untouched(server, "datname !~ '^hms_restore'", "^(hms.postgres|pg_restore)"):
        yield
        until(lambda: lying(server) == [], "the plaintext is gone", seconds=60)


def lying(server: Instance) -> list[pathlib.Path]:
    """Files below the folder in which a restore may put them."""
    return [path for path in (server.folder / "work").rglob("*") if path.is_file()]


def site_of(server: Instance, tmp_path: pathlib.Path, database: str) -> RestoreSite:
    """A store of the test's own, for one of the databases."""
    return RestoreSite(server, tmp_path / "site", database=database)


def backed_up(site: RestoreSite, **changes: t.Any) -> dict[str, t.Any]:
    """A backup in the directory format."""
    staging = site.instance.folder / "staging"
    if not staging.exists():
        staging.mkdir(mode=0o700)
        shutil.chown(staging, "postgres")
    wanted = {"format": "directory", "staging_dir": str(staging), "jobs": 2, "encryption": ENCRYPTION, "verify": "none"}
    made: dict[str, t.Any] = site.backup(**{**wanted, **changes}).values["backup"]
    return made


def asked(site: RestoreSite, **changes: t.Any) -> dict[str, t.Any]:
    """What most of these restores are told."""
    return {"encryption": ENCRYPTION, "jobs": 2, "work_dir": str(site.instance.folder / "work"), **changes}


def load_of(site: RestoreSite, path: str) -> str:
    """What a record tells of the load."""
    (detail,) = [str(step["detail"]) for step in site.record(path)["steps"] if step["id"] == "load"]
    return detail


# --- several jobs from a file without a name --------------------------------------------------------------------------


@pytest.mark.parametrize("jobs", [2, 4])
def test_several_jobs_that_were_asked_for(server: Instance, tmp_path: pathlib.Path, jobs: int) -> None:
    """With names and rows that are strange, and with large objects; the file was never to be seen."""
    for database in ("strange", "hospital"):
        site = site_of(server, tmp_path / database, database)
        site.backup(encryption=ENCRYPTION, verify="none")
        done = site.restore(**asked(site, jobs=jobs))
        assert (done.values["plan"]["staged"], lying(server)) == (str(server.folder / "work"), [])
        assert f"without a name; {jobs} jobs" in load_of(site, done.values["record"])
        scratch = done.values["scratch"]
        assert backup_site.dump_text(server, scratch) == backup_site.dump_text(server, database)
        backup_site.drop(server, scratch)


def test_nothing_lies_on_a_disk_where_nobody_asked(server: Instance, tmp_path: pathlib.Path) -> None:
    """Then one job restores from the stream, and several sessions collect statistics and count."""
    site = site_of(server, tmp_path, "strange")
    site.backup(encryption=ENCRYPTION, verify="none")
    alone = asked(site, work_dir=str(server.folder / "nowhere"))
    del alone["jobs"]
    done = site.restore(**alone)
    assert "one job" in load_of(site, done.values["record"])
    assert not (server.folder / "nowhere").exists()
    scratch = done.values["scratch"]
    ask = "SELECT string_agg(format('%s:%s', id, text), ',' ORDER BY id) FROM ends"
    assert server.sql(ask, dbname=scratch) == server.sql(ask, dbname="strange")
    analyzed = "SELECT count(*) FROM pg_class WHERE relname IN ('ends', 'visits', 'counts') AND reltuples >= 0"
    assert server.sql(analyzed, dbname=scratch) == "3"


@pytest.mark.parametrize("share", [0.02, 0.97])
def test_one_flipped_bit_in_the_stream(server: Instance, tmp_path: pathlib.Path, share: float) -> None:
    site = site_of(server, tmp_path, "large")
    path = site.data_file(site.backup(encryption=ENCRYPTION, verify="none").values["backup"]["id"])
    flip(path, share)
    error = site.refused(**asked(site))
    assert (error.reason, error.state) == ("artifact_damaged", UNTOUCHED)
    assert restore_site.scratches(server) == []


def flip(path: pathlib.Path, share: float) -> None:
    """One bit, at some share of the file."""
    data = bytearray(path.read_bytes())
    data[int(len(data) * share)] ^= 1
    path.write_bytes(data)


def test_a_stream_cut_short_without_a_manifest(server: Instance, tmp_path: pathlib.Path) -> None:
    """No hash tells: the programs do. Not encrypted, an archive may end between two tables."""
    site = site_of(server, tmp_path, "large")
    for name, encryption in (("old.dump.zst.gpg", ENCRYPTION), ("old.dump.zst", None)):
        whole = site.data_file(site.backup(encryption=encryption, verify="none").values["backup"]["id"]).read_bytes()
        (tmp_path / name).write_bytes(whole[: len(whole) * 2 // 3])
        error = site.refused(**asked(site, backup=str(tmp_path / name)))
        assert error.reason == "artifact_damaged"
        assert restore_site.scratches(server) == []
    archive = backup_site.plain(site.data_file(site.manifests()[-1]["id"]))
    for share in (0.1, 0.5, 0.999):
        (tmp_path / "plain.dump").write_bytes(archive[: int(len(archive) * share)])
        error = site.refused(**asked(site, backup=str(tmp_path / "plain.dump")))
        assert error.reason in ("restore_failed", "artifact_damaged", "not_an_archive")
        assert restore_site.scratches(server) == []


def test_the_first_error_of_a_job_ends_it(server: Instance, tmp_path: pathlib.Path) -> None:
    """And the stream is hashed to its end all the same, for damage is another thing than a statement that fails."""
    server.sql(
        "CREATE FUNCTION first_word(int) RETURNS text LANGUAGE sql IMMUTABLE AS"
        " $$ SELECT left(who, 1) FROM marked LIMIT $1 $$;"
        " CREATE TABLE trap AS SELECT 1 AS id; CREATE INDEX trap_index ON trap (first_word(id))",
        dbname="large",
    )
    site = site_of(server, tmp_path, "large")
    try:
        made = site.backup(encryption=ENCRYPTION, verify="none").values["backup"]
    finally:
        server.sql("DROP TABLE trap; DROP FUNCTION first_word", dbname="large")
    error = site.refused(**asked(site))
    assert (error.reason, error.state) == ("restore_failed", UNTOUCHED)
    assert error.details["failed_entry"].startswith("CREATE INDEX trap_index")
    flip(site.data_file(made["id"]), 0.99)
    assert site.refused(**asked(site)).reason == "artifact_damaged"
    assert restore_site.scratches(server) == []


# --- the directory format -------------------------------------------------------------------------------------------


def test_the_directory_format_comes_back(server: Instance, tmp_path: pathlib.Path) -> None:
    site = site_of(server, tmp_path, "hospital")
    backed_up(site)
    planned = site.restore(check_mode=True, **asked(site))
    assert any("unpacked and unencrypted" in warning for warning in planned.warnings)
    done = site.restore(**asked(site))
    assert backup_site.dump_text(server, done.values["scratch"]) == backup_site.dump_text(server, "hospital")
    contents = next(check for check in done.values["validations"] if check["name"] == "contents")
    assert f"{sum(ROWS.values())} rows, 5 large objects, as in the manifest" in contents["detail"]
    place = server.folder / "work" / "unpacked"
    assert (list(place.iterdir()), stat.S_IMODE(place.stat().st_mode), place.owner()) == ([], 0o700, "postgres")


def test_the_directory_format_in_place(server: Instance, tmp_path: pathlib.Path) -> None:
    """It is read whole before anything goes: what it lacks is known then."""
    server.sql("CREATE DATABASE gone TEMPLATE strange")
    site = site_of(server, tmp_path, "gone")
    try:
        backed_up(site)
        before = backup_site.dump_text(server, "gone")
        server.sql("DELETE FROM patients", dbname="gone")
        restore_site.left_alone(server, "gone")
        done = site.restore(**asked(site, strategy="in_place"))
        assert (done.values["restored"], backup_site.dump_text(server, "gone")) == (True, before)
    finally:
        backup_site.drop(server, "gone")


def test_the_directory_format_is_drilled(server: Instance, tmp_path: pathlib.Path) -> None:
    site = site_of(server, tmp_path, "hospital")
    made = backed_up(site)
    shutil.chown(server.folder, "postgres")
    given = site.order(directory=str(server.folder / "drill"), encryption=ENCRYPTION, settings={"fsync": False})
    del given["database"]
    (result,) = _drill_work.work(given, check_mode=False).values["results"]
    assert (result["id"], result["ok"], result["noted"]) == (made["id"], True, True)
    assert not (server.folder / "drill").exists()


@pytest.mark.parametrize("damage", ["flipped", "cut short", "missing", "swapped"])
def test_a_damaged_folder(server: Instance, tmp_path: pathlib.Path, damage: str) -> None:
    site = site_of(server, tmp_path, "hospital")
    path = site.data_file(backed_up(site)["id"])
    if damage == "flipped":
        flip(path, 0.5)
    elif damage == "cut short":
        os.truncate(path, path.stat().st_size - 100)
    elif damage == "missing":
        path.unlink()
    else:
        # another backup's, of the same size as the manifest tells
        data = site.data_file(backed_up(site)["id"]).read_bytes()
        path.write_bytes(data[: path.stat().st_size].ljust(path.stat().st_size, b"\0"))
    error = site.refused(**asked(site, backup=str(path.parent)))
    seen_before = damage in ("cut short", "missing")
    assert (error.reason, error.state) == ("artifact_damaged", NOTHING if seen_before else UNTOUCHED)
    assert restore_site.scratches(server) == []


def test_keys_that_do_not_fit_a_folder(server: Instance, tmp_path: pathlib.Path) -> None:
    site = site_of(server, tmp_path, "hospital")
    backed_up(site)
    for encryption, reason in (({"passphrase": "wrong"}, "bad_passphrase"), (None, "no_key")):
        error = site.refused(**asked(site, encryption=encryption))
        assert (error.reason, error.state) == (reason, NOTHING)


def test_no_room_to_unpack(server: Instance, tmp_path: pathlib.Path) -> None:
    site = site_of(server, tmp_path, "large")
    backed_up(site)
    small = server.folder / "small"
    small.mkdir()
    run("mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(small))
    try:
        error = site.refused(**asked(site, work_dir=str(small)))
        assert [path for path in small.rglob("*") if path.is_file()] == []
    finally:
        run("umount", "--lazy", str(small))
        small.rmdir()
    assert (error.reason, error.state) == ("no_room", UNTOUCHED)
    assert error.next_step.endswith("or restore a backup in the custom format, which needs none.")
    assert restore_site.scratches(server) == []


# --- killed ---------------------------------------------------------------------------------------------------------


def unpacked(server: Instance) -> int:
    """Bytes that lie unpacked by now."""
    size = 0
    for path in lying(server):
        with contextlib.suppress(FileNotFoundError):
            size += path.stat().st_size
    return size


def loading(server: Instance) -> bool:
    """Whether rows are on their way, or an index is built."""
    ask = (
        "SELECT count(*) FROM pg_stat_activity WHERE datname LIKE 'hms_restore%'"
        " AND (query LIKE 'COPY%' OR query LIKE 'CREATE INDEX%')"
    )
    return server.sql(ask) != "0"


def kill_when(condition: t.Callable[[], bool], site: RestoreSite) -> set[int]:
    """A restore, and SIGKILL at a moment before the rows are in; what worked for it then."""
    with gate(site.instance).closed():
        process = site.start_restore(**asked(site))
        until(lambda: condition() or process.poll() is not None, "the moment has come", seconds=60)
        assert process.poll() is None, site.module_output()
        found = backup_site.descendants(process.pid)
        restore_site.kill(process)
    return found


@pytest.mark.parametrize("moment", ["unpacking", "loading"])
def test_killed_over_a_folder(server: Instance, tmp_path: pathlib.Path, moment: str) -> None:
    """The guard removes what lies there, whoever was killed; the next run finishes."""
    site = site_of(server, tmp_path, "large")
    backed_up(site)
    begun: dict[str, t.Callable[[], bool]] = {
        "unpacking": lambda: unpacked(server) > 1_000_000,
        "loading": lambda: loading(server),
    }
    helpers = kill_when(begun[moment], site)
    until(lambda: lying(server) == [], "the plaintext is gone", seconds=60)
    until(lambda: not any(map(process_alive, helpers)), "nobody is left", seconds=60)
    until(lambda: not loading(server), "the server has noticed", seconds=60)
    (left,) = restore_site.scratches(server)
    assert "hms.postgres restored" not in restore_site.comment(server, left)
    done = site.restore(**asked(site))
    assert restore_site.scratches(server) == [done.values["scratch"]]
    assert server.sql("SELECT count(*) FROM letters", dbname=done.values["scratch"]) == str(20 * 1024)


def test_killed_over_a_file_without_a_name(server: Instance, tmp_path: pathlib.Path) -> None:
    """It is gone with those who had it open; the next run finishes."""
    site = site_of(server, tmp_path, "large")
    site.backup(encryption=ENCRYPTION, verify="none")
    helpers = kill_when(lambda: loading(server), site)
    until(lambda: not any(map(process_alive, helpers)), "nobody is left", seconds=60)
    until(lambda: not loading(server), "the server has noticed", seconds=60)
    assert lying(server) == []
    done = site.restore(**asked(site))
    assert server.sql("SELECT count(*) FROM letters", dbname=done.values["scratch"]) == str(20 * 1024)


def test_told_to_end_while_jobs_work(server: Instance, tmp_path: pathlib.Path) -> None:
    site = site_of(server, tmp_path, "large")
    site.backup(encryption=ENCRYPTION, verify="none")
    with gate(server).closed():
        process = site.start_restore(**asked(site))
        until(lambda: loading(server) or process.poll() is not None, "it loads", seconds=60)
        helpers = backup_site.descendants(process.pid)
        process.terminate()
        assert process.wait(60) == 1
    found = site.module_output()
    assert (found["reason"], found["state"]) == ("interrupted", UNTOUCHED)
    assert (restore_site.scratches(server), backup_site.remnants_in_memory(process.pid)) == ([], [])
    until(lambda: not any(map(process_alive, helpers)), "nobody is left", seconds=60)
    assert json.loads((site.folder / "module.out").read_text())["failed"]


def test_jobs_end_in_time(server: Instance, tmp_path: pathlib.Path) -> None:
    site = site_of(server, tmp_path, "large")
    site.backup(encryption=ENCRYPTION, verify="none")
    with gate(server).closed():
        error = site.refused(**asked(site, timeout=2.0))
    assert error.reason == "deadline_passed"
    assert error.state in (UNTOUCHED, NOTHING)
    assert restore_site.scratches(server) == []
