# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups in the directory format: dumped by several workers into a folder that must not outlive the run.

What is in them is judged by gpg, zstd, tar, pg_restore and psql; that nothing stays, by the folder and by /proc.
"""

from __future__ import annotations

import contextlib
import glob
import hashlib
import io
import json
import os
import pathlib
import shutil
import signal
import subprocess
import tarfile
import threading
import time
import typing as t

import psycopg
import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact.directory_restore import MOST_JOBS
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Member
from ansible_collections.hms.postgres.plugins.module_utils._artifact.staging import Staging, look_at
from ansible_collections.hms.postgres.plugins.module_utils._artifact.verify import MemberCheck, verify_member
from ansible_collections.hms.postgres.plugins.module_utils._backup import reverify
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._store.folder import FolderStore
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec
from ansible_collections.hms.postgres.plugins.module_utils._tools.compressors import default_threads
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_restore import PgRestore
from ansible_collections.hms.postgres.tests.real import backup_site, held
from ansible_collections.hms.postgres.tests.real.backup_site import PASSPHRASE, ROWS, Site, odd_database
from ansible_collections.hms.postgres.tests.real.held import ProgramGate
from ansible_collections.hms.postgres.tests.real.lab import (
    BINARIES,
    Instance,
    Lab,
    as_postgres,
    process_alive,
    run,
    signal_all,
    until,
)

pytestmark = pytest.mark.timeout(400)

WEIRD = 'weird "name; drop'
MARKER = "Patient-Zero-Marker-4410"
BIG = ("notes", "letters")


@pytest.fixture(scope="module")
def server(module_lab: Lab) -> Instance:
    """A server with a database in which everything is odd, and one that takes a while."""
    instance = module_lab.primary(shared_buffers="64MB")
    odd_database(instance, WEIRD)
    instance.sql("CREATE ROLE migrator SUPERUSER LOGIN")
    instance.sql("CREATE DATABASE hospital")
    instance.sql(
        f"CREATE TABLE marked AS SELECT '{MARKER} ' || n AS who FROM generate_series(1, 500) n", dbname="hospital"
    )
    for name in BIG:
        backup_site.big_table(instance, "hospital", name=name, megabytes=25)
    return instance


def owned(path: pathlib.Path) -> pathlib.Path:
    """A folder that is the dumping user's alone."""
    path.mkdir()
    path.chmod(0o700)
    shutil.chown(path, "postgres")
    return path


@pytest.fixture
def place(server: Instance) -> t.Iterator[pathlib.Path]:
    """A folder that the dumping user can get to, unlike pytest's."""
    path = server.folder / "places"
    path.mkdir()
    path.chmod(0o711)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def staging(place: pathlib.Path) -> t.Iterator[pathlib.Path]:
    """A place for plaintext, which is empty again afterwards."""
    path = owned(place / "staging")
    yield path
    until(lambda: list(path.iterdir()) == [], "the plaintext is gone")
    assert backup_site.remnants_in_memory(os.getpid()) == []


@pytest.fixture
def site(server: Instance, tmp_path: pathlib.Path) -> t.Iterator[Site]:
    """A store of the test's own; afterwards nobody is connected, and no scratch database is left."""
    yield Site(server, tmp_path / "site")
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name ~ '^(hms.postgres|pg_dump|pg_restore)'"
    until(lambda: server.sql(count) == "0", "the server's sessions have ended")


def directory(staging: pathlib.Path, **changes: t.Any) -> dict[str, t.Any]:
    """The arguments that ask for it."""
    return {"format": "directory", "staging_dir": str(staging), "jobs": 2, **changes}


def test_it_comes_back_by_hand(server: Instance, tmp_path: pathlib.Path, staging: pathlib.Path) -> None:
    """With gpg, zstd, tar and pg_restore -j alone; everything odd is there again."""
    site = Site(server, tmp_path / "weird", database=WEIRD)
    result = site.backup(**directory(staging, verify="deep", encryption={"passphrase": PASSPHRASE}))
    made = result.values["backup"]
    assert [json.loads(json.dumps(made))] == site.manifests()
    assert (made["format"], made["contents"]["rows"]) == ("directory", ROWS)
    assert made["verification"]["level"] == "deep"
    assert made["verification"]["rows_compared"] == len(ROWS)
    assert made["verification"]["entries"] > 20
    assert any(f"lies unencrypted in {staging}" in warning for warning in result.warnings)
    assert [member["name"] for member in made["members"]] == [
        "properties.json.zst.gpg",
        "globals.sql.zst.gpg",
        "schema.dump.zst.gpg",
        "data.tar.zst.gpg",
    ]
    (data,) = [member for member in made["members"] if member["role"] == "data"]
    path = site.members(made["id"]) / data["name"]
    assert (backup_site.sha256(path), path.stat().st_size) == (data["sha256"], data["bytes"])
    stream = tmp_path / "data.tar"
    stream.write_bytes(backup_site.plain(path, backup_site.with_passphrase(tmp_path)))
    unpacked = owned(staging.parent / "unpacked")
    run("tar", "-x", "-f", str(stream), "-C", str(unpacked))
    run("chown", "-R", "postgres", str(unpacked))
    server.sql("CREATE DATABASE copy TEMPLATE template0")
    where = ("-h", str(server.sockets), "-p", str(server.port))
    restore = (str(BINARIES / "pg_restore"), "-Fd", "-j2", "--exit-on-error", *where, "-d", "copy")
    as_postgres(*restore, str(unpacked / "data"))
    try:
        assert backup_site.dump_text(server, "copy") == backup_site.dump_text(server, WEIRD)
        assert server.sql("SELECT count(*) FROM patients", dbname="copy") == "1000"
    finally:
        backup_site.drop(server, "copy")


def verified(site: Site, **more: t.Any) -> dict[str, t.Any]:
    """What pg_backup_verify finds of the newest backup."""
    order: dict[str, t.Any] = {
        "cluster": "hospital",
        "store": {"folder": str(site.store)},
        "login_host": str(site.instance.sockets),
        "login_port": site.instance.port,
        "state_dir": str(site.state),
        **more,
    }
    result = reverify.verify(order, check_mode=False, runner=SystemRunner(), clock=SystemClock())
    (found,) = result.values["results"]
    return t.cast("dict[str, t.Any]", found["verification"])


def test_it_is_proven_again_later(site: Site, staging: pathlib.Path) -> None:
    made = site.backup(**directory(staging)).values["backup"]
    read = verified(site)
    assert (read["ok"], read["entries"]) == (True, made["verification"]["entries"])
    with pytest.raises(Refused) as caught:
        verified(site, level="deep")
    assert (caught.value.reason, "staging_dir" in caught.value.next_step) == ("staging_missing", True)
    deep = verified(site, level="deep", staging_dir=str(staging))
    assert (deep["ok"], deep["level"], deep["rows_compared"]) == (True, "deep", 3)


def test_data_only_and_schema_only(site: Site, staging: pathlib.Path) -> None:
    data = site.backup(**directory(staging, type="data_only")).values["backup"]
    assert [member["name"] for member in data["members"]] == ["data.tar.zst"]
    schema = site.backup(format="directory", type="schema_only", verify="deep").values["backup"]
    assert [member["name"] for member in schema["members"]][-1] == "schema.dump.zst"


def test_check_mode_makes_nothing(site: Site, staging: pathlib.Path) -> None:
    planned = site.backup(check_mode=True, **directory(staging)).values["plan"]
    assert (planned["jobs"], planned["staging_dir"]) == (2, str(staging))
    assert planned["members"][-1] == "data.tar.zst"
    assert (list(staging.iterdir()), list(site.folder.rglob("*"))) == ([], [site.store])


def refused(site: Site, **changes: t.Any) -> HmsError:
    """The error of a backup that isn't even begun."""
    with pytest.raises(HmsError) as caught:
        site.backup(format="directory", **changes)
    assert caught.value.state == "Nothing was touched."
    assert list(site.store.rglob("*")) == []
    return caught.value


def test_a_place_that_is_not_fit_is_refused_before_anything_starts(
    site: Site, staging: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    error = refused(site)
    assert error.reason == "staging_missing"
    assert "can't encrypt" in error.message
    assert "Give staging_dir" in error.next_step
    assert refused(site, staging_dir=str(tmp_path / "nowhere")).reason == "staging_unusable"
    staging.chmod(0o750)
    assert "mode 0750" in refused(site, staging_dir=str(staging)).message
    staging.chmod(0o700)
    shutil.chown(staging, "root")
    error = refused(site, staging_dir=str(staging))
    assert "belongs to root" in error.message
    assert f"install -d -m 0700 -o postgres {staging}" in error.next_step
    shutil.chown(staging, "postgres")
    link = tmp_path / "link"
    link.symlink_to(staging)
    assert "no folder" in refused(site, staging_dir=str(link)).message
    inside = refused(site, staging_dir=str(site.store / "inside"))
    assert inside.details["refusals"][0]["rule"] == "staging_in_store"
    with pytest.raises(HmsError) as caught:
        site.backup(jobs=2)
    assert caught.value.reason == "jobs_need_directory"


@contextlib.contextmanager
def small_disk(folder: pathlib.Path, size: str) -> t.Iterator[pathlib.Path]:
    """A tmpfs that is the dumping user's."""
    owned(folder)
    run("mount", "-t", "tmpfs", "-o", f"size={size},mode=0700,uid=postgres", "hmstest", str(folder))
    try:
        yield folder
    finally:
        run("umount", "--lazy", str(folder))


def test_a_place_that_is_too_small_is_refused(site: Site, place: pathlib.Path) -> None:
    with small_disk(place / "small", "8m") as folder:
        error = refused(site, staging_dir=str(folder))
    assert error.reason == "staging_full"
    assert "8.4 MB free" in error.message


def test_a_place_that_fills_up_leaves_nothing(
    server: Instance, tmp_path: pathlib.Path, place: pathlib.Path, staging: pathlib.Path
) -> None:
    """Rows that are much longer than the server keeps them, so that nobody could know before."""
    server.sql("CREATE DATABASE dense TEMPLATE template0")
    text = "CREATE TABLE dense AS SELECT n, repeat('x', 1000000) AS body FROM generate_series(1, 60) n"
    server.sql(text, dbname="dense")
    site = Site(server, tmp_path / "site", database="dense")
    try:
        with small_disk(place / "small", "24m") as folder:
            with pytest.raises(HmsError) as dumped:
                site.backup(**directory(folder))
            assert (list(folder.iterdir()), site.manifests(), site.loose()) == ([], [], [])
            site.backup(**directory(staging))
            with pytest.raises(HmsError) as unpacked:
                verified(site, level="deep", staging_dir=str(folder))
            assert list(folder.iterdir()) == []
        assert server.sql("SELECT count(*) FROM pg_database WHERE datname LIKE 'hms_verify%'") == "0"
    finally:
        backup_site.drop(server, "dense")
    assert dumped.value.phase == "pg_dump"
    assert "No space left on device" in dumped.value.message
    assert str(folder) in dumped.value.next_step
    assert "nothing of it is left" in dumped.value.state
    assert unpacked.value.reason == "staging_full"


# --- killed -------------------------------------------------------------------------------------------------------


def program_of(pid: int) -> str:
    """The name of the program that a process runs, '' when it is gone."""
    with contextlib.suppress(OSError):
        return os.path.basename(os.readlink(f"/proc/{pid}/exe"))
    return ""


def working_in(staging: pathlib.Path, program: str) -> list[int]:
    """The living processes of a program that have a folder in `staging` among their arguments."""
    return [
        int(entry.name)
        for entry in pathlib.Path("/proc").iterdir()
        if entry.name.isdigit()
        and program_of(int(entry.name)) == program
        and f"{staging}/" in backup_site.command_line(int(entry.name))
        and process_alive(int(entry.name))
    ]


def rows_in(staging: pathlib.Path) -> int:
    """Bytes of rows that lie there by now."""
    size = 0
    for path in glob.glob(f"{staging}/*/data/*.dat"):
        with contextlib.suppress(FileNotFoundError):
            size += os.stat(path).st_size
    return size


def parent_of(pid: int) -> int:
    """The parent of a living process."""
    return int(pathlib.Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[1])


def guard_of(staging: pathlib.Path) -> int:
    """The process that guards the folder."""
    (found,) = [
        int(entry.name)
        for entry in pathlib.Path("/proc").iterdir()
        if entry.name.isdigit()
        and "staging_guard" in (line := backup_site.command_line(int(entry.name)))
        and str(staging) in line
        and process_alive(int(entry.name))
    ]
    return found


def ended(*pids: int) -> None:
    """All of these processes end."""
    until(lambda: not any(map(process_alive, pids)), f"{pids} have ended")


def plaintext(folder: pathlib.Path) -> list[str]:
    """Files below a folder that hold the marker: a database's row, readable."""
    return run("grep", "-rla", MARKER, str(folder), check=False).split()


def reached(condition: t.Callable[[], t.Any], what: str, process: subprocess.Popen[bytes], site: Site) -> None:
    """Wait for a moment that the run is held at."""
    until(lambda: bool(condition()) or process.poll() is not None, what, seconds=100)
    assert process.poll() is None, f"too late for {what}: {site.module_output()}"


def stopped_in_the_dump(
    site: Site, staging: pathlib.Path, **changes: t.Any
) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A run whose pg_dump and workers are stopped, each worker in a table; rows lie in the folder."""
    with held.unread(site.instance, "hospital", *BIG):
        process = site.start_module(**directory(staging, encryption={"passphrase": PASSPHRASE}, **changes))
        reached(lambda: rows_in(staging) and len(working_in(staging, "pg_dump")) == 3, "two dump", process, site)
        found = working_in(staging, "pg_dump")
        assert len(signal_all(found, signal.SIGSTOP)) == 3
    return process, found


def packing(site: Site, staging: pathlib.Path) -> subprocess.Popen[bytes]:
    """A run whose tar has begun to pack the files up, and comes no further: nobody reads what it writes."""
    folder = staging.parent / "held"
    folder.mkdir()
    gate = ProgramGate(folder, "/usr/bin/zstd")
    changes = directory(staging, encryption={"passphrase": PASSPHRASE})
    process = site.start_module(prefix=gate.prefix, **changes)

    def packs(_pid: int) -> bool:
        lines = map(backup_site.command_line, backup_site.descendants(process.pid))
        return any("--create" in line and f"--directory={staging}/" in line for line in lines)

    gate.hold(process, packs, "the files are packed up")
    reached(lambda: working_in(staging, "tar"), "the files are packed up", process, site)
    return process


def usable(site: Site, staging: pathlib.Path) -> dict[str, t.Any]:
    """The next run is not disturbed by what a dead one left."""
    made = site.backup(**directory(staging, type="data_only"))
    assert made.values["backup"]["verification"]["ok"]
    return t.cast("dict[str, t.Any]", json.loads(pathlib.Path(made.values["record"]).read_bytes()))


def test_killed_while_the_workers_dump(site: Site, staging: pathlib.Path) -> None:
    """pg_dump dies with us; its workers would go on to the end of their tables."""
    process, dumpers = stopped_in_the_dump(site, staging)
    guard = guard_of(staging)
    (folder,) = staging.iterdir()
    assert (folder.stat().st_mode & 0o777, folder.owner()) == (0o700, "postgres")
    assert rows_in(staging) > 0
    process.kill()
    process.wait(100)
    ended(*dumpers, guard)
    assert list(staging.iterdir()) == []
    assert site.manifests() == []
    usable(site, staging)


def test_killed_while_it_is_packed_up(site: Site, staging: pathlib.Path) -> None:
    process = packing(site, staging)
    guard = guard_of(staging)
    assert plaintext(staging) != []
    process.kill()
    process.wait(100)
    ended(guard)
    assert list(staging.iterdir()) == []
    assert (site.manifests(), plaintext(site.folder)) == ([], [])


def test_killed_while_it_is_restored_for_the_proof(site: Site, staging: pathlib.Path) -> None:
    jobs = min(MOST_JOBS, default_threads())
    with held.waiting_restores(site.instance, "hospital"):
        process = site.start_module(**directory(staging, verify="deep"))
        number = jobs + 1 if jobs > 1 else 1
        reached(lambda: len(working_in(staging, "pg_restore")) == number, "the workers restore", process, site)
        guard, workers = guard_of(staging), working_in(staging, "pg_restore")
        assert plaintext(staging) != []
        process.kill()
        process.wait(100)
        ended(*workers, guard)
    assert list(staging.iterdir()) == []
    assert site.manifests() == []


def test_the_guard_is_killed_too_and_the_next_run_tidies_up(site: Site, staging: pathlib.Path) -> None:
    """All that is left then is a folder that nobody holds. One that somebody holds stays."""
    process, dumpers = stopped_in_the_dump(site, staging)
    (folder,) = staging.iterdir()
    guard = guard_of(staging)
    os.kill(guard, signal.SIGKILL)
    process.kill()
    process.wait(100)
    # until then it holds the folder
    ended(guard)
    assert folder.is_dir()
    with Staging(str(staging), "20261122T020000Z-backup-3fa9", os_user="postgres") as other:
        assert other.gone == (folder.name,)
        assert not folder.exists()
        ended(*dumpers)
        record = usable(site, staging)
        assert os.path.isdir(other.path)
    (step,) = [found for found in record["steps"] if found["id"] == "staging"]
    assert step["detail"] == "nothing was left there"


def test_the_guard_alone_is_killed(site: Site, staging: pathlib.Path) -> None:
    """Then the run removes the folder itself, and nobody takes it for a dead one's meanwhile."""
    with Staging(str(staging), "20261122T020000Z-backup-3fa9", os_user="postgres") as held:
        os.kill(guard_of(staging), signal.SIGKILL)
        with Staging(str(staging), "20261122T020001Z-backup-3fa9", os_user="postgres") as other:
            assert other.gone == ()
            assert sorted(path.name for path in staging.iterdir()) == sorted(
                os.path.basename(path) for path in (held.path, other.path)
            )
    assert list(staging.iterdir()) == []
    assert site.manifests() == []


def test_a_user_of_ones_own(tmp_path: pathlib.Path) -> None:
    """Without os_user the folder is that of whoever runs the backup; what others left there is none of his."""
    own = owned(tmp_path / "own")
    assert "belongs to postgres" in str(look_at(str(own), None, "").problem)
    shutil.chown(own, "root")
    foreign = own / "hms-staging-20261122T020000Z-backup-3fa9-abc"
    foreign.mkdir()
    shutil.chown(foreign, "postgres")
    assert look_at(str(own), None, str(tmp_path)).beside_server
    with Staging(str(own), "20261122T020001Z-backup-3fa9", os_user=None) as made:
        assert os.stat(made.path).st_uid == 0
        assert made.gone == ()
    assert list(own.iterdir()) == [foreign]


def test_a_place_that_the_user_can_not_reach(tmp_path: pathlib.Path) -> None:
    (tmp_path / "closed").mkdir(mode=0o700)
    closed = tmp_path / "closed" / "staging"
    closed.mkdir(mode=0o700)
    shutil.chown(closed, "postgres")
    with pytest.raises(HmsError) as caught, Staging(str(closed), "20261122T020001Z-backup-3fa9", os_user="postgres"):
        pass
    assert caught.value.reason == "staging_unusable"
    assert "Permission denied" in caught.value.message


def test_told_to_end(site: Site, staging: pathlib.Path) -> None:
    process = packing(site, staging)
    process.terminate()
    assert process.wait(100) == 1
    assert site.module_output()["reason"] == "interrupted"
    assert list(staging.iterdir()) == []
    assert (site.manifests(), site.loose()) == ([], [])


def test_pg_dump_is_killed(site: Site, staging: pathlib.Path) -> None:
    """The workers, left alone, are ended, and what they wrote is removed."""
    process, dumpers = stopped_in_the_dump(site, staging)
    (leader,) = [pid for pid in dumpers if parent_of(pid) == process.pid]
    os.kill(leader, signal.SIGKILL)
    assert process.wait(100) == 1
    ended(*dumpers)
    found = site.module_output()
    assert (found["reason"], found["phase"]) == ("stage_failed", "pg_dump")
    assert list(staging.iterdir()) == []


def test_a_lost_race_for_a_table_is_run_again(site: Site, staging: pathlib.Path, server: Instance) -> None:
    """A worker doesn't wait for a table that somebody asks for exclusively; the whole dump begins anew."""
    process, dumpers = stopped_in_the_dump(site, staging)
    where = f"host={server.sockets} port={server.port} user=migrator dbname=hospital application_name=migrate"
    granted = threading.Event()

    def ask() -> None:
        with psycopg.connect(where) as connection:
            connection.execute("LOCK TABLE marked IN ACCESS EXCLUSIVE MODE")
            granted.set()

    asking = threading.Thread(target=ask)
    asking.start()
    waiting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'migrate' AND wait_event_type = 'Lock'"
    until(lambda: server.sql(waiting) == "1", "somebody waits for the table")
    signal_all(dumpers, signal.SIGCONT)
    assert process.wait(100) == 0, site.module_output()
    asking.join(60)
    assert granted.is_set()
    (made,) = site.manifests()
    assert made["contents"]["rows"]["public.marked"] == 500
    record = json.loads(pathlib.Path(site.module_output()["record"]).read_bytes())
    tries = [found for found in record["steps"] if found["id"] == "dump files"]
    assert [found["result"] for found in tries] == ["failed", "ok"]
    assert "could not obtain lock on relation" in tries[0]["detail"]


# --- what verification finds ---------------------------------------------------------------------------------------


def altered(stream: bytes, change: t.Callable[[str, bytes], bytes | None]) -> bytes:
    """The same tar stream with other files; None leaves one out."""
    output = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(stream)) as old,
        tarfile.open(fileobj=output, mode="w", format=tarfile.GNU_FORMAT) as new,
    ):
        for found in old:
            if not found.isreg():
                new.addfile(found)
                continue
            content = change(os.path.basename(found.name), t.cast("t.IO[bytes]", old.extractfile(found)).read())
            if content is not None:
                found.size = len(content)
                new.addfile(found, io.BytesIO(content))
    return output.getvalue()


def test_what_is_not_whole_is_found(server: Instance, tmp_path: pathlib.Path, staging: pathlib.Path) -> None:
    """Each of these is stored as it should be, and its checksum fits; the files inside don't."""
    site = Site(server, tmp_path / "weird", database=WEIRD)
    made = site.backup(**directory(staging, compression="none")).values["backup"]
    stream = (site.members(made["id"]) / "data.tar").read_bytes()
    assert check(tmp_path, stream).problems == ()
    with tarfile.open(fileobj=io.BytesIO(stream)) as whole:
        tables = [found for found in whole if found.name.partition("/")[2].partition(".")[0].isdigit()]
    rows = max(tables, key=lambda found: found.size).name.rpartition("/")[2]
    damages: list[tuple[bytes, str]] = [
        (altered(stream, lambda name, data: None if name == rows else data), f"{rows} which are missing"),
        (altered(stream, lambda name, data: data[:-9] if name == rows else data), f"{rows} are cut short"),
        (altered(stream, lambda name, data: None if name == "toc.dat" else data), "no table of contents"),
        (altered(stream, lambda name, data: data[:99] if name == "toc.dat" else data), "table of contents can't be"),
        (altered(stream, lambda name, data: None if name[:5] == "blob_" else data), "its list names others"),
        (altered(stream, lambda name, data: None if name[:6] == "blobs." else data), "large objects"),
        (stream[:-20480], "cut short"),
        (stream[:512] + b"?" * 512 + stream[1024:], "damaged"),
        (b"", "cut short"),
    ]
    for damaged, words in damages:
        found = check(tmp_path, damaged)
        assert found.problems, words
        assert words in found.problems[0]
        assert found.plain_sha256 is None


def check(folder: pathlib.Path, stream: bytes) -> MemberCheck:
    """What the verification says of a stream, stored as its manifest has it."""
    (folder / "stored").mkdir(exist_ok=True)
    (folder / "stored" / "data.tar").write_bytes(stream)
    member = Member("data", "data.tar", len(stream), hashlib.sha256(stream).hexdigest())
    return verify_member(
        FolderStore(FolderSpec(str(folder / "stored"))),
        "data.tar",
        member,
        None,
        pg_restore=PgRestore(str(BINARIES / "pg_restore"), os_user="postgres"),
        deadline=time.monotonic() + 60,
        os_user="postgres",
    )
