# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Backups: ours, what old scripts do, and the best pipeline written by hand, one after the other in each round.

make bench BENCH_ARGS="backup --gigabytes 2 --rounds 3"
make bench BENCH_ARGS="backup --rounds 0 --memory 0.5,4"

Only ratios within a round are worth something on a busy machine. Ours is timed from the start of the module's process,
with its look at the server, its checks of keys and its fsync; the rivals do none of that.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import pwd
import random
import statistics
import subprocess
import time
import typing as t

import psycopg

from ansible_collections.hms.postgres.tests.real import backup_site
from ansible_collections.hms.postgres.tests.real.backup_site import Keys, Site
from ansible_collections.hms.postgres.tests.real.lab import BINARIES, Instance, Lab, as_postgres, clear_stale
from ansible_collections.hms.postgres.tests.real.s3_server import S3Server

RECIPIENT = "ops@example.org"
ROW = 1400
SENTENCES = 300_000


def _sentences() -> list[str]:
    """Pseudo-clinical text: words as frequent as in a language, few sentences twice within a compressor's window."""
    source = random.Random(20261122)  # text to compress, not a secret
    letters = "etaoinshrdlucmfwygpbvkjxqz"
    words = [
        "".join(source.choices(letters, weights=range(26, 0, -1), k=source.randint(2, 11))) for _number in range(8000)
    ]
    weights = [1 / (rank + 5) for rank in range(len(words))]
    stream = iter(source.choices(words, weights=weights, k=SENTENCES * 12))
    return [" ".join(next(stream) for _word in range(12)) for _sentence in range(SENTENCES)]


def fill(instance: Instance, dbname: str, gigabytes: float) -> None:
    """A text-heavy database of about that size on disk."""
    instance.sql(f"CREATE DATABASE {dbname}")
    instance.sql(
        "CREATE TABLE notes (id bigint, patient int, at timestamptz, author text, body text);"
        " ALTER TABLE notes ALTER body SET STORAGE EXTERNAL; CREATE TABLE labs (id bigint, code text, value float8)",
        dbname=dbname,
    )
    instance.sql("ALTER ROLE postgres PASSWORD 'bench of the lab'")
    sentences, source = _sentences(), random.Random(7)  # text to compress, not a secret
    rows = int(gigabytes * 1e9 / (ROW * 1.12))
    with psycopg.connect(instance.conninfo("postgres", dbname=dbname, password="bench of the lab")) as connection:
        with connection.cursor().copy("COPY notes FROM STDIN") as copy:
            for number in range(rows):
                body = ". ".join(source.choices(sentences, k=ROW // 75))
                copy.write_row(
                    (number, number % 50021, f"2026-01-{number % 28 + 1:02} 08:00Z", f"dr{number % 97}", body)
                )
        with connection.cursor().copy("COPY labs FROM STDIN") as copy:
            for number in range(rows):
                copy.write_row((number, f"L{number % 400:03}", source.gauss(100, 15)))
    instance.sql(
        "CREATE INDEX ON notes (patient); CREATE INDEX ON notes (at); CREATE INDEX ON labs (code)", dbname=dbname
    )
    instance.sql("CHECKPOINT")
    instance.sql("VACUUM ANALYZE", dbname=dbname)


class Pipe:
    """A pipeline as one would type it, without a shell."""

    def __init__(self, instance: Instance, keys: Keys, target: pathlib.Path) -> None:
        self._where = ("-h", str(instance.sockets), "-p", str(instance.port))
        self._gpg = ["gpg", "--homedir", str(keys.home), "--batch", "--quiet", "--yes", "--trust-model", "always"]
        self._gpg += ["--recipient", RECIPIENT, "--output", str(target), "--encrypt"]
        self._target = target

    def _dump(self, *options: str) -> list[str]:
        return [str(BINARIES / "pg_dump"), "-Fc", *options, *self._where, "hospital"]

    def old(self) -> float:
        """``pg_dump -Fc | gpg``, both with the compression that they have by default."""
        return self._run(self._dump(), self._gpg)

    def by_hand(self) -> float:
        """``pg_dump -Fc -Z0 | zstd -T0 -3 | gpg --compress-algo none``."""
        return self._run(self._dump("-Z0"), ["zstd", "-T0", "-3", "-q", "-c"], [*self._gpg, "--compress-algo", "none"])

    def _run(self, *stages: list[str]) -> float:
        self._target.unlink(missing_ok=True)
        begun = time.monotonic()
        running: list[subprocess.Popen[bytes]] = []
        for number, argv in enumerate(stages):
            running.append(
                subprocess.Popen(
                    argv,
                    stdin=running[-1].stdout if running else subprocess.DEVNULL,
                    stdout=subprocess.PIPE if number < len(stages) - 1 else subprocess.DEVNULL,
                    user=pwd.getpwnam("postgres").pw_uid if number == 0 else None,
                    cwd="/",
                )
            )
        for process in running[:-1]:
            assert process.stdout
            process.stdout.close()
        assert [process.wait() for process in running] == [0] * len(running)
        return time.monotonic() - begun

    def size(self) -> int:
        """Bytes of what was made."""
        return self._target.stat().st_size


class Ours:
    """The module in a process of its own."""

    def __init__(self, site: Site, key_file: pathlib.Path) -> None:
        self._site = site
        self._encryption = {"recipients": [RECIPIENT], "key_files": [str(key_file)]}

    def run(self, **changes: t.Any) -> tuple[float, int, dict[str, t.Any]]:
        """Seconds, the process's peak of resident memory in bytes, and the manifest."""
        begun = time.monotonic()
        process = self._site.start_module(encryption=self._encryption, timeout=3600.0, **changes)
        peak = 0
        while process.poll() is None:
            peak = max(peak, peak_memory(process.pid))
            time.sleep(0.05)
        seconds = time.monotonic() - begun
        found = self._site.module_output()
        assert process.returncode == 0, found
        return seconds, peak, found["backup"]

    def clear(self) -> None:
        """Make room."""
        for path in self._site.store.iterdir():
            backup_site.remove_tree(path)


def peak_memory(pid: int) -> int:
    """The most bytes that a process has had in memory so far; 0 when it is gone."""
    with contextlib.suppress(OSError, IndexError, ValueError):
        status = pathlib.Path(f"/proc/{pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024
    return 0


def _stored(manifest: t.Mapping[str, t.Any]) -> int:
    return sum(member["bytes"] for member in manifest["members"])


WAYS: dict[str, dict[str, t.Any]] = {
    "ours, not verified": {"verify": "none"},
    "ours, not verified, rows not counted": {"verify": "none", "row_counts": False},
    "ours, verified": {},
}


def measure(instance: Instance, folder: pathlib.Path, rounds: int) -> None:
    """Every way once in each round, in turns."""
    with backup_site.keys_in(folder) as keys:
        site = Site(instance, folder / "site")
        ours, pipe = Ours(site, keys.make(RECIPIENT)), Pipe(instance, keys, folder / "site" / "rival.gpg")
        seconds: dict[str, list[float]] = {}
        sizes: dict[str, int] = {}
        pipe.by_hand()  # the first one finds the cache cold
        for number in range(rounds):
            order: list[tuple[str, t.Callable[[], tuple[float, int]]]] = [
                ("old scripts", lambda: (pipe.old(), pipe.size())),
                ("by hand", lambda: (pipe.by_hand(), pipe.size())),
                *((name, _way(ours, options)) for name, options in WAYS.items()),
                ("by hand, again", lambda: (pipe.by_hand(), pipe.size())),
            ]
            for name, work in order[number % 2 :] + order[: number % 2]:
                taken, sizes[name] = work()
                seconds.setdefault(name, []).append(taken)
                print(f"  round {number + 1}: {name}: {taken:.2f} s, {sizes[name] / 1e6:.0f} MB", flush=True)
            ours.clear()
        hand = [min(pair) for pair in zip(seconds["by hand"], seconds["by hand, again"], strict=True)]
        for name, values in seconds.items():
            to_old = statistics.median(old / value for old, value in zip(seconds["old scripts"], values, strict=True))
            to_hand = statistics.median(value / best for best, value in zip(hand, values, strict=True))
            print(
                f"{name}: median {statistics.median(values):.2f} s, {to_old:.2f} x the speed of old scripts,"
                f" {to_hand:.3f} x the time of the better one by hand"
            )


def _way(ours: Ours, options: dict[str, t.Any]) -> t.Callable[[], tuple[float, int]]:
    def run() -> tuple[float, int]:
        taken, _peak_bytes, manifest = ours.run(**options)
        return taken, _stored(manifest)

    return run


def memory(instance: Instance, folder: pathlib.Path, gigabytes: float) -> None:
    """The peak of our own process, into a folder and into S3."""
    with backup_site.keys_in(folder) as keys, S3Server(folder / "s3") as server:
        site = Site(instance, folder / "site")
        ours = Ours(site, keys.make(RECIPIENT))
        server.bucket("backups")
        stores = {"folder": {"folder": str(site.store)}, "S3": {"s3": server.settings("backups")}}
        for name, store in stores.items():
            seconds, peak, manifest = ours.run(store=store)
            print(
                f"{gigabytes:g} GB into {name}: peak {peak / 1e6:.0f} MB, {seconds:.1f} s with verification,"
                f" {_stored(manifest) / 1e6:.0f} MB stored",
                flush=True,
            )
        ours.clear()


@contextlib.contextmanager
def _filled(gigabytes: float) -> t.Iterator[tuple[Instance, pathlib.Path]]:
    lab = Lab()
    try:
        instance = lab.primary(shared_buffers="512MB", max_wal_size="8GB")
        begun = time.monotonic()
        fill(instance, "hospital", gigabytes)
        size = as_postgres(
            "psql", "-XqAt", "-h", str(instance.sockets), "-p", str(instance.port),
            "-c", "SELECT pg_size_pretty(pg_database_size('hospital'))", "postgres",
        ).strip()  # fmt: skip
        print(f"a database of {size}, filled in {time.monotonic() - begun:.0f} s; {os.cpu_count()} cores", flush=True)
        folder = lab.folder / "bench"
        folder.mkdir()
        yield instance, folder
    finally:
        lab.close()


def main(arguments: list[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="bench backup")
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--memory", default="0.5,4", help="sizes in GB at which memory is measured; '' for none")
    options = parser.parse_args(arguments)
    clear_stale()
    if options.rounds:
        with _filled(options.gigabytes) as (instance, folder):
            measure(instance, folder, options.rounds)
    for size in filter(None, options.memory.split(",")):
        with _filled(float(size)) as (instance, folder):
            memory(instance, folder, float(size))
    return 0
