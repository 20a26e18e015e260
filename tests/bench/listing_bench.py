# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A catalog of ten thousand backups, listed from a folder and from S3, without the cache and with it.

    make bench BENCH_ARGS="listing --backups 10000 --rounds 3"

Each listing is a process of its own, as a backup's is: seconds are those of the listing, memory is the most that the
process ever had, and what it had before it began is told beside it. The server shares the machine's cores.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / ".collections"))

from ansible_collections.hms.postgres.plugins.module_utils._artifact import catalog
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import (
    CATALOG,
    Manifest,
    Member,
    Verification,
)
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import open_store, store_spec_from
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server

BEGUN = datetime.datetime(2025, 1, 1, tzinfo=datetime.timezone.utc)
MEMBERS = (("schema", "schema.dump"), ("data", "data.dump"), ("globals", "globals.sql"), ("properties", "database.sql"))
TABLES = 300
CACHE = f"hospital/hospital/{CATALOG}"


def made(number: int, source: random.Random) -> Manifest:
    """A manifest as a backup writes it, every hour one."""
    begun = BEGUN + datetime.timedelta(hours=number, seconds=source.randrange(60))
    at, ended = (f"{moment:%Y-%m-%dT%H:%M:%S}.{source.randrange(10**6):06}Z" for moment in (begun, begun))

    def digest() -> str:
        return f"{source.getrandbits(256):064x}"

    return Manifest(
        id=f"{begun:%Y%m%dT%H%M%SZ}-backup-{number % 65536:04x}",
        cluster="hospital",
        environment="production",
        database="hospital",
        engine="pg_dump",
        type="full",
        format="custom",
        host="db1",
        by="cron",
        started=at,
        ended=ended,
        seconds=source.uniform(50, 90),
        members=tuple(
            Member(role, f"{name}.zst.gpg", size, digest(), source.randrange(10**9), digest())
            for role, name in MEMBERS
            for size in [source.randrange(2000) if role == "data" else len(name)]
        ),
        server={
            "version_num": 150018,
            "system_identifier": "7300000000000000001",
            "timeline": 3,
            "encoding": "UTF8",
            "collate": "C.UTF-8",
            "ctype": "C.UTF-8",
            "is_standby": False,
            "host": "db1",
        },
        snapshot={"lsn": f"{number:X}/{source.getrandbits(32):08X}", "time": at, "id": f"{number:08X}-00000002-1"},
        tools={"pg_dump": "15.18", "gpg": "2.2.40", "zstd": "1.5.4"},
        compression={"method": "zstd", "level": 3, "threads": 2},
        encryption={"method": "gpg", "recipients": ["A" * 40, "B" * 40]},
        contents={
            "database_bytes": source.randrange(10**11),
            "tables": TABLES,
            "large_objects": 12,
            "rows": {f"public.table_{table}": source.randrange(10**7) for table in range(TABLES)},
        },
        verification=Verification("read", True, ended, source.uniform(5, 20), entries=2000),
    )


def generate(root: pathlib.Path, backups: int) -> None:
    """A store of that many backups."""
    source = random.Random(20261122)  # sizes and times, not secrets
    for number in range(backups):
        manifest = made(number, source)
        folder = root / manifest.folder
        folder.mkdir(parents=True)
        for member in manifest.members:
            (folder / member.name).write_bytes(b"x" * member.bytes)
        (folder / "manifest.json").write_text(json.dumps(manifest.as_dict(), indent=1, sort_keys=True) + "\n")


class Listing(t.NamedTuple):
    """What one process says of itself."""

    entries: int
    problems: int
    read: int
    requests: int
    seconds: float
    cpu: float
    before: float
    peak: float


def peak() -> float:
    """The most memory that this program ever had, in MB."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6


def child(settings: str) -> None:
    """The process that is measured."""
    store = open_store(store_spec_from(json.loads(pathlib.Path(settings).read_text())))
    requests = [0]

    def count(**_event: t.Any) -> None:
        requests[0] += 1

    bucket = getattr(store, "_bucket", None)
    if bucket is not None:
        bucket.client.meta.events.register("before-send.s3", count)
    before, begun, cpu = peak(), time.monotonic(), time.process_time()
    found = catalog.load_store(store, "hospital", "hospital")
    seconds, cpu = time.monotonic() - begun, time.process_time() - cpu
    said = Listing(len(found.entries), len(found.problems), found.read, requests[0], seconds, cpu, before, peak())
    sys.stdout.write(json.dumps(said._asdict()) + "\n")


def listed(settings: pathlib.Path) -> Listing:
    """One listing in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", __file__, str(settings)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return Listing(**json.loads(done.stdout))


def measure(name: str, settings: t.Mapping[str, t.Any], root: pathlib.Path, folder: pathlib.Path, rounds: int) -> None:
    """Cold and warm by turns; prints the medians."""
    path = folder / f"{name}.json"
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600), "w") as file:
        json.dump(settings, file)
    cold, warm = [], []
    for _round in range(rounds):
        (root / CACHE).unlink(missing_ok=True)
        cold.append(listed(path))
        warm.append(listed(path))
    for kind, found in (("cold", cold), ("warm", warm)):
        print(
            f"{name}, {kind}: {found[0].entries} backups in {statistics.median(one.seconds for one in found):.2f} s"
            f" ({statistics.median(one.cpu for one in found):.2f} s of CPU of its own),"
            f" {found[0].requests} requests, {found[0].read} objects read,"
            f" memory at most {max(one.peak for one in found):.0f} MB ({found[0].before:.0f} MB before)",
            flush=True,
        )
    ratio = statistics.median(after.seconds / before.seconds for before, after in zip(cold, warm))
    print(f"{name}: warm ÷ cold {ratio:.3f}; the cache has {(root / CACHE).stat().st_size / 1e6:.2f} MB", flush=True)


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench listing")
    parser.add_argument("--backups", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args(arguments)
    with contextlib.ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hms-listing-")))
        server = S3Server(folder / "s3")
        root = server.bucket("backups")
        generate(root, options.backups)
        measure("folder", {"folder": str(root)}, root, folder, options.rounds)
        stack.enter_context(server)
        measure("S3", {"s3": server.settings("backups")}, root, folder, options.rounds)
    return 0


if __name__ == "__main__":
    child(sys.argv[1])
