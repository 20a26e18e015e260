# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Recovery to a point in time: ours, and pgBackRest by hand, one after the other in each round.

make bench BENCH_ARGS="pitr --gigabytes 2 --wal 1 --rounds 3"

A primary has a full backup in an encrypted repository, and after it WAL of many small transactions. The target lies
between two of them near the end. Both restore with as many processes, fetch WAL by the same configuration, run with
the same settings, end paused at the target, and count the rows of a table there. Ours is timed from the start of the
module's process to its end. It chooses the backup, looks for holes in the archive and for room, and closes the live
server's segment; by hand the target is known and its WAL archived, and nothing is looked at.

Only ratios within a round are worth something on a busy machine. What is wanted of both is that they hold the rows
that the live database held at the target; how long they take is told.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import typing as t

from ansible_collections.hms.postgres.tests.bench.backup_bench import fill, peak_memory
from ansible_collections.hms.postgres.tests.bench.pitr_data import DATABASE, HELD, TIMEOUT, ask, history
from ansible_collections.hms.postgres.tests.real.backup_site import ROOT
from ansible_collections.hms.postgres.tests.real.lab import (
    BINARIES,
    DIRECTORY,
    OS_USER,
    Instance,
    Lab,
    as_postgres,
    clear_stale,
    signal_all,
    until,
    working_in,
)
from ansible_collections.hms.postgres.tests.real.pgbackrest_site import STANZA, Site, begin, own

POLL = 0.2
"""Seconds between two looks at whether it is paused, as of the module."""
COUNTED = "labs"
PHASES = ("around", "look", "restore", "start", "recover", "inspect")
PAUSED = "SELECT pg_is_in_recovery() AND pg_get_wal_replay_pause_state() = 'paused'"


@dataclasses.dataclass(frozen=True)
class Told:
    """What both recover: from where, to when, and the rows that were there."""

    site: Site
    target: str
    rows: str
    processes: int


@dataclasses.dataclass
class Found:
    """Seconds by phase of each round, ours and by hand; the peak of our process in bytes; who held other rows."""

    rounds: list[tuple[dict[str, float], dict[str, float]]] = dataclasses.field(default_factory=list)
    peak: int = 0
    wrong: list[str] = dataclasses.field(default_factory=list)


def apart(*argv: str) -> None:
    """Run a program as the servers' user in a session of its own, as nice as we are, as the module runs its own.

    Where the kernel groups processes by session, one that shares ours would get another part of the processor.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            ["runuser", "-u", OS_USER, "--", *argv],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd="/",
            start_new_session=True,
        )
        with contextlib.suppress(OSError):
            nice = os.getpriority(os.PRIO_PROCESS, 0)
            pathlib.Path(f"/proc/{process.pid}/autogroup").write_text(str(nice), encoding="ascii")
        code = process.wait(TIMEOUT)
        output.seek(0)
        assert code == 0, f"{argv[0]} ended with {code}:\n{output.read()[-2000:].decode(errors='replace')}"


def _programs(name: str, folder: pathlib.Path) -> list[int]:
    """Processes of a program that were told of a folder."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            argv = (entry / "cmdline").read_bytes().split(b"\0") if entry.name.isdigit() else [b""]
            if os.path.basename(argv[0]) == name.encode() and any(os.fsencode(folder) in part for part in argv):
                found.append(int(entry.name))
    return found


class Way:
    """One way to recover, into a folder of its own."""

    def __init__(self, told: Told, name: str) -> None:
        self.told = told
        self.folder = told.site.lab.folder / name
        self.server = Instance(name, told.site.lab.port(), self.folder)

    def recover(self) -> dict[str, float]:
        """Do it; seconds by phase."""
        raise NotImplementedError

    def rows(self) -> str:
        """What the recovered database holds."""
        return ask(self.server, HELD)

    def clear(self) -> None:
        """End what runs in the folder and remove it, however it is."""
        signal_all(_programs("pgbackrest", self.folder), signal.SIGKILL)
        signal_all(_programs("postgres", self.folder), signal.SIGQUIT)
        until(lambda: not working_in(self.server.data), f"{self.server.name} is down", seconds=60.0)
        shutil.rmtree(self.folder, ignore_errors=True)


class ByHand(Way):
    """``pgbackrest restore``, settings, ``pg_ctl start``, and a look every now and then."""

    def recover(self) -> dict[str, float]:
        seconds = {}
        for name, work in (
            ("restore", self._restore),
            ("start", self._start),
            ("recover", self._wait),
            ("inspect", lambda: ask(self.server, f"SELECT count(*) FROM {COUNTED}")),
        ):
            begun = time.monotonic()
            work()
            seconds[name] = time.monotonic() - begun
        return seconds

    def _restore(self) -> None:
        for folder in (self.folder, self.server.data, self.server.sockets, self.folder / "spool", self.folder / "lock"):
            folder.mkdir()
            own(folder)
        argv = ["pgbackrest", f"--config={self.told.site.config}", f"--stanza={STANZA}", "restore"]
        argv += [f"--pg1-path={self.server.data}", "--type=time", f"--target={self.told.target}"]
        argv += ["--target-action=pause", "--archive-mode=off", f"--process-max={self.told.processes}"]
        argv += [f"--spool-path={self.folder}/spool", f"--lock-path={self.folder}/lock"]
        apart(*argv)

    def _start(self) -> None:
        """Debian keeps the settings elsewhere, so none were restored."""
        settings = (
            f"port = {self.server.port}\nlisten_addresses = ''\nunix_socket_directories = '{self.server.sockets}'\n"
            f"hba_file = '{self.folder}/hba.conf'\nmax_connections = 50\nlog_min_messages = warning\n"
        )
        for path, text in (
            (self.server.data / "postgresql.conf", settings),
            (self.folder / "hba.conf", "local all postgres peer\n"),
        ):
            path.write_text(text)
            own(path)
        control = [str(BINARIES / "pg_ctl"), "-D", str(self.server.data), "-s", "-W"]
        as_postgres(*control, "-l", str(self.folder / "log"), "start")

    def _wait(self) -> None:
        deadline = time.monotonic() + TIMEOUT
        while ask(self.server, PAUSED, database="postgres", check=False) != "t":
            log = (self.folder / "log").read_text(errors="replace")[-2000:]
            assert time.monotonic() < deadline, f"it is not paused at the target:\n{log}"
            assert self.server.pid is not None, f"the server ended:\n{log}"
            time.sleep(POLL)


class Ours(Way):
    """The module in a process of its own."""

    def __init__(self, told: Told, name: str) -> None:
        super().__init__(told, name)
        self.peak = 0
        self._process: subprocess.Popen[bytes] | None = None

    def _arguments(self) -> dict[str, t.Any]:
        site = self.told.site
        return {
            "cluster": "hospital",
            "environment": "testing",
            "database": DATABASE,
            "login_host": str(site.instance.sockets),
            "login_port": site.instance.port,
            "pgbackrest": {"config": str(site.config), "stanza": STANZA},
            "state_dir": str(site.folder),
            "directory": str(self.folder),
            "port": self.server.port,
            "processes": self.told.processes,
            "target_time": self.told.target,
            "count": [COUNTED],
            "timeout": TIMEOUT,
        }

    def recover(self) -> dict[str, float]:
        given, printed = (self.told.site.lab.folder / name for name in ("module.in", "module.out"))
        given.write_text(json.dumps({"ANSIBLE_MODULE_ARGS": self._arguments()}))
        begun = time.monotonic()
        with given.open("rb") as source, printed.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "ansible_collections.hms.postgres.plugins.modules.pg_pitr"],
                stdin=source,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT / ".collections"), "LC_ALL": "C.UTF-8"},
                start_new_session=True,
            )
        while self._process.poll() is None:
            self.peak = max(self.peak, peak_memory(self._process.pid))
            time.sleep(0.05)
        whole = time.monotonic() - begun
        text = printed.read_text(errors="replace")
        assert self._process.returncode == 0, text
        told = json.loads(text[text.index("{") :])
        seconds = {name: value for name, value in told["seconds"].items() if name in PHASES}
        assert told["reached"]["paused"] is True, told
        return {"around": whole - sum(seconds.values()), **seconds}

    def clear(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(60)
        super().clear()


def measure(told: Told, rounds: int) -> Found:
    """Both once in each round, in turns; each is removed before the other begins."""
    found = Found()
    ours = Ours(told, "ours")
    for number in range(rounds):
        pair: dict[bool, dict[str, float]] = {}
        for mine in (number % 2 == 1, number % 2 == 0):
            way = ours if mine else ByHand(told, "byhand")
            os.sync()
            try:
                pair[mine] = way.recover()
                if way.rows() != told.rows:
                    found.wrong.append(f"{way.server.name} in round {number + 1}")
            finally:
                way.clear()
        found.rounds.append((pair[True], pair[False]))
        found.peak = ours.peak
        load = os.getloadavg()[0]
        shown = [f"{sum(seconds.values()):.2f} s ({_phases(seconds)})" for seconds in found.rounds[-1]]
        print(
            f"  {number + 1}: ours {shown[0]}; by hand {shown[1]}; {_ratio(found.rounds[-1]):.3f}; load {load:.1f}",
            flush=True,
        )
    return found


def _phases(seconds: t.Mapping[str, float]) -> str:
    return ", ".join(f"{name} {seconds[name]:.2f}" for name in PHASES if name in seconds)


def _ratio(pair: tuple[t.Mapping[str, float], t.Mapping[str, float]]) -> float:
    return sum(pair[0].values()) / sum(pair[1].values())


def table(rounds: t.Sequence[tuple[t.Mapping[str, float], t.Mapping[str, float]]]) -> list[str]:
    """Medians by phase and of the whole, ours beside by hand; each ratio is the median of those within a round."""
    lines = [f"{'seconds':<10}{'ours':>10}{'by hand':>10}{'ratio':>10}"]
    for name, phases in [*((phase, (phase,)) for phase in PHASES), ("whole", PHASES)]:
        pairs = [tuple(sum(one.get(phase, 0.0) for phase in phases) for one in pair) for pair in rounds]
        ours, rival = (statistics.median(pair[index] for pair in pairs) for index in (0, 1))
        ratios = [pair[0] / pair[1] for pair in pairs if pair[1]]
        ratio = f"{statistics.median(ratios):.3f}" if ratios else "-"
        lines.append(f"{name:<10}{ours:10.2f}{rival:10.2f}{ratio:>10}")
    return lines


def dominant(seconds: t.Sequence[t.Mapping[str, float]]) -> str:
    """The phase that takes the largest part, and its share."""
    shares = {phase: statistics.median(one.get(phase, 0.0) / sum(one.values()) for one in seconds) for phase in PHASES}
    first = max(shares, key=lambda phase: shares[phase])
    return f"{first}, {shares[first]:.0%}"


def report(found: Found) -> bool:
    """Print what was measured; whether both held the right rows in each round."""
    print("\n".join(table(found.rounds)))
    ratio = statistics.median(_ratio(pair) for pair in found.rounds)
    print(f"ratio: {ratio:.3f} (ours ÷ by hand, median), n = {len(found.rounds)}")
    ours, rival = (dominant([pair[index] for pair in found.rounds]) for index in (0, 1))
    print(f"what dominates: ours {ours}; by hand {rival}")
    print(f"peak memory of our process: {found.peak / 1e6:.0f} MB")
    print(f"rows at the target: {'OTHERS with ' + ', '.join(found.wrong) if found.wrong else 'the same with both'}")
    return not found.wrong


def prepare(lab: Lab, options: argparse.Namespace) -> Told:
    """The primary, its full backup, and the WAL after it."""
    instance = lab.primary(archive_mode="on", archive_command="/bin/true", shared_buffers="512MB")
    repo = lab.folder / "repo"
    repo.mkdir()
    site = Site(lab, instance, own(repo))
    with site.config.open("a", encoding="utf-8") as config:
        config.write(f"process-max={options.processes}\n")
    fill(instance, DATABASE, options.gigabytes)
    begin(site)
    backup = site.backup("full", verify="none", timeout=TIMEOUT).manifest
    size = instance.sql(f"SELECT pg_size_pretty(pg_database_size('{DATABASE}'))")
    print(f"a database of {size}, {backup.bytes / 1e6:.0f} MB stored; {os.cpu_count()} cores", flush=True)
    before = instance.sql("SELECT pg_current_wal_lsn()")
    target, rows = history(site, options.wal)
    written = int(instance.sql(f"SELECT pg_current_wal_lsn() - '{before}'::pg_lsn"))
    stored = sum(path.stat().st_size for path in site.segments())
    print(
        f"{written / 1e6:.0f} MB of WAL after it, {stored / 1e6:.0f} MB stored; the target is {target}: {rows}",
        flush=True,
    )
    return Told(site, target, rows, options.processes)


def close(lab: Lab) -> None:
    """Remove everything; a pgBackRest in the background would make files anew."""
    lab.close()
    signal_all(_programs("pgbackrest", lab.folder), signal.SIGKILL)
    shutil.rmtree(lab.folder, ignore_errors=True)


def main(arguments: list[str]) -> int:
    """Measure, and hold the rows of both against the live database's."""
    parser = argparse.ArgumentParser(prog="bench pitr")
    parser.add_argument("--gigabytes", type=float, default=2.0, help="of data")
    parser.add_argument("--wal", type=float, default=1.0, help="gigabytes of WAL after the backup")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2, help="that restore, of both")
    parser.add_argument("--directory", default=DIRECTORY, help="where everything is made, and removed at the end")
    options = parser.parse_args(arguments)
    needed = (3.5 * options.gigabytes + 3 * options.wal + 1) * 1e9
    if shutil.disk_usage(options.directory).free < needed:
        print(f"{needed / 1e9:.0f} GB are needed at {options.directory}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    clear_stale(options.directory)
    lab = Lab(options.directory)
    try:
        found = measure(prepare(lab, options), options.rounds)
    finally:
        close(lab)
    return 0 if report(found) else 1
