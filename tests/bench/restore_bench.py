# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Restores to serving: ours from one encrypted artifact, and pg_restore by hand from a folder decrypted before.

make bench BENCH_ARGS="restore --patients 300000 --rounds 5"

Only ratios within a round are worth something on a busy machine. Ours is timed from the start of the module's process
to its end: the look at artifact and server, the keys, decryption, decompression, the hash of what is stored, the load,
statistics, and the proof of rows, constraints, indexes and sequences. The rival is given a folder in the format
directory, uncompressed, which lies in the page cache, an empty database, and nothing to decrypt, hash or prove; it has
``vacuumdb --analyze-only`` behind it, for without statistics nobody can be served. What it takes without them is
told, too.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import resource
import shutil
import statistics
import time
import typing as t

from ansible_collections.hms.postgres.tests.bench.restore_data import fill
from ansible_collections.hms.postgres.tests.real import restore_site
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, OS_USER, Instance, Lab, as_postgres, clear_stale
from ansible_collections.hms.postgres.tests.real.restore_site import RestoreSite

ENCRYPTION = {"passphrase": "of the bench"}
RIVAL = "rival"
SETTLE = 0.5
WANTED = 1.15
TIMEOUT = 3600.0
SERVER: dict[str, t.Any] = {
    "fsync": "on",
    "shared_buffers": "1GB",
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    "effective_cache_size": "4GB",
}
"""About what the role postgresql sets on such a machine; the same server for both."""


class Rival:
    """``pg_restore -j2`` by hand, and the statistics."""

    def __init__(self, server: Instance, folder: pathlib.Path) -> None:
        self._where = ("-h", str(server.sockets), "-p", str(server.port))
        self._server = server
        self._folder = folder / "decrypted"
        folder.chmod(0o755)
        made = folder / "made"
        made.mkdir()
        shutil.chown(made, OS_USER)
        self._folder = made / "dump"
        self._run("pg_dump", "--format=directory", "--jobs=2", "--compress=0", f"--file={self._folder}", "hospital")

    def _run(self, program: str, *arguments: str) -> float:
        begun = time.monotonic()
        as_postgres(str(BINARIES / program), *self._where, *arguments, timeout=TIMEOUT)
        return time.monotonic() - begun

    def raw_bytes(self) -> int:
        """What the folder holds."""
        return sum(path.stat().st_size for path in self._folder.iterdir())

    def restore(self) -> dict[str, float]:
        """Seconds by phase."""
        created = self._run("createdb", "--template=template0", RIVAL)
        loaded = self._run("pg_restore", "--jobs=2", "--exit-on-error", f"--dbname={RIVAL}", str(self._folder))
        analyzed = self._run("vacuumdb", "--analyze-only", "--quiet", "--jobs=2", RIVAL)
        return {"create": created, "load": loaded, "analyze": analyzed}

    def clear(self) -> None:
        """Make room."""
        self._server.sql(f"DROP DATABASE IF EXISTS {RIVAL}")


class Ours:
    """The module in a process of its own."""

    def __init__(self, server: Instance, folder: pathlib.Path, *, directory: bool, **changes: t.Any) -> None:
        self._server = server
        self._site = RestoreSite(server, folder)
        self._changes = changes
        site = self._site
        layout: dict[str, t.Any] = {}
        if directory:
            staging = folder / "staging"
            staging.mkdir(mode=0o700)
            shutil.chown(staging, OS_USER)
            layout = {"format": "directory", "staging_dir": str(staging), "jobs": 2}
        self.made = site.backup(encryption=ENCRYPTION, timeout=TIMEOUT, **layout).values["backup"]

    def restore(self) -> dict[str, float]:
        """Seconds by phase, as the record says, and `beside` them: Python's start, the look, the end."""
        begun = time.monotonic()
        process = self._site.start_restore(encryption=ENCRYPTION, timeout=TIMEOUT, again=True, **self._changes)
        process.wait()
        seconds = time.monotonic() - begun
        found = self._site.module_output()
        assert process.returncode == 0, found
        assert found["ready"], found
        steps = json.loads(pathlib.Path(found["record"]).read_text())["steps"]
        phases = {step["id"]: step["ended"] - step["started"] for step in steps}
        return {"start and look": seconds - sum(phases.values()), **phases}

    def clear(self) -> None:
        """Make room."""
        for name in restore_site.scratches(self._server):
            self._server.sql(f"DROP DATABASE {name}")


def spent(server: Instance) -> float:
    """Seconds of CPU that ended sessions of the server and ended programs of ours have taken so far."""
    fields = pathlib.Path(f"/proc/{server.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    of_server = (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
    ours = resource.getrusage(resource.RUSAGE_CHILDREN)
    return of_server + ours.ru_utime + ours.ru_stime


def measure(
    server: Instance, rival: Rival, ours: Ours, rounds: int
) -> tuple[list[tuple[dict[str, float], dict[str, float]]], float]:
    """Both once in each round, in turns; and the median of how many times the rival's CPU time ours takes."""
    found, burnt = [], []
    for number in range(rounds):
        pair: dict[bool, dict[str, float]] = {}
        cpu: dict[bool, float] = {}
        for mine in (number % 2 == 1, number % 2 == 0):
            one: Rival | Ours = ours if mine else rival
            server.sql("CHECKPOINT")
            before = spent(server)
            pair[mine] = one.restore()
            time.sleep(SETTLE)
            cpu[mine] = spent(server) - before
            one.clear()
        burnt.append(cpu[True] / cpu[False])
        found.append((pair[True], pair[False]))
        told = [f"{sum(seconds.values()):.2f} s ({_phases(seconds)})" for seconds in found[-1]]
        load = os.getloadavg()[0]
        print(
            f"  {number + 1}: ours {told[0]}; by hand {told[1]}; {_ratio(*found[-1]):.3f}; load {load:.1f}", flush=True
        )
    return found, statistics.median(burnt)


def _phases(seconds: t.Mapping[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())


def _ratio(ours: t.Mapping[str, float], rival: t.Mapping[str, float], *without: str) -> float:
    return sum(ours.values()) / sum(value for name, value in rival.items() if name not in without)


def report(found: t.Sequence[tuple[dict[str, float], dict[str, float]]], burnt: float) -> bool:
    """Print medians; whether the figure is met."""
    for name, index in (("ours", 0), ("by hand", 1)):
        phases = {phase: statistics.median(pair[index][phase] for pair in found) for phase in found[0][index]}
        whole = statistics.median(sum(pair[index].values()) for pair in found)
        print(f"{name}: median {whole:.2f} s; {_phases(phases)}")
    ratio = statistics.median(_ratio(*pair) for pair in found)
    bare = statistics.median(_ratio(*pair, "analyze") for pair in found)
    loads = statistics.median(pair[0]["load"] / pair[1]["load"] for pair in found)
    print(f"ratio to serving: {ratio:.3f} (ours ÷ pg_restore -j2 and its statistics), n = {len(found)}")
    print(f"ratio, the rival without statistics: {bare:.3f}; of the loads alone: {loads:.3f}")
    print(f"ratio of CPU times, whoever else is at work: {burnt:.3f}")
    print(f"target (≤ {WANTED}): {'met' if ratio <= WANTED else 'MISSED'}")
    return ratio <= WANTED


def main(arguments: list[str]) -> int:
    """Measure, and hold it against the target."""
    parser = argparse.ArgumentParser(prog="bench restore")
    parser.add_argument("--patients", type=int, default=200_000, help="2.2 KB of raw data for each")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=0, help="of ours; 0 for its default")
    parser.add_argument("--layout", choices=("custom", "directory"), default="directory", help="of the artifact")
    options = parser.parse_args(arguments)
    clear_stale()
    lab = Lab()
    try:
        server = lab.primary(**SERVER)
        fill(server, "hospital", options.patients)
        folder = lab.folder / "bench"
        folder.mkdir()
        rival = Rival(server, folder)
        jobs = {"jobs": options.jobs} if options.jobs else {}
        ours = Ours(server, folder / "site", directory=options.layout == "directory", **jobs)
        stored = sum(member["bytes"] for member in ours.made["members"])
        size = server.sql("SELECT pg_size_pretty(pg_database_size('hospital'))")
        print(
            f"a database of {size}: {rival.raw_bytes() / 1e6:.0f} MB raw, {stored / 1e6:.0f} MB stored;"
            f" {os.cpu_count()} cores",
            flush=True,
        )
        found, burnt = measure(server, rival, ours, options.rounds)
    finally:
        lab.close()
    return 0 if report(found, burnt) else 1
