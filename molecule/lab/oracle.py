# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The lab's witness: asks the hosts themselves with psql, and never the collection.

    python3 oracle.py cluster --primary db2 --standby db1 --standby db3 --bouncer bouncer1=10.231.77.21
    python3 oracle.py pools --bouncer bouncer1=10.231.77.21
    python3 oracle.py leader db1 db2 db3
    python3 oracle.py record --directory ~/.local/state/hms-postgres/records --operation failover
    python3 oracle.py ledgers --primary db2 --directory /var/lib/hms-lab/planned
    python3 oracle.py power-off db1

It prints what it found as JSON; its exit code is 1 when something is not as it must be, and "problems" says what.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import csv
import io
import json
import os
import pathlib
import subprocess
import sys
import time
import typing as t

DATABASE = "hospital"
CLIENT = "client1"
BOUNCER_PORT = 6432
PROBE_SOURCE = 32000
COMMAND_TIMEOUT = 15.0
POLL = 0.5

_IDENTITY = """
SELECT pg_catalog.pg_is_in_recovery(),
       CASE WHEN pg_catalog.pg_is_in_recovery() THEN ''
            ELSE pg_catalog.substr(pg_catalog.pg_walfile_name(pg_catalog.pg_current_wal_lsn()), 1, 8) END,
       (SELECT pg_catalog.upper(pg_catalog.lpad(pg_catalog.to_hex(received_tli), 8, '0'))
          FROM pg_catalog.pg_stat_wal_receiver WHERE status = 'streaming')
"""
_SENDERS = "SELECT application_name FROM pg_catalog.pg_stat_replication WHERE state = 'streaming'"
_SLOTS = "SELECT slot_name, active, coalesce(wal_status, '') FROM pg_catalog.pg_replication_slots"
_WRITE = f"""
INSERT INTO public.ledger_entry (source, seq)
SELECT {PROBE_SOURCE}, coalesce(pg_catalog.max(seq), 0) + 1 FROM public.ledger_entry WHERE source = {PROBE_SOURCE}
RETURNING pg_catalog.host(pg_catalog.inet_server_addr())
"""


class Unavailable(Exception):
    """A command on a host did not do its work."""


def podman(*argv: str, timeout: float = COMMAND_TIMEOUT) -> str:
    """Output of a podman command; root's rights are asked for when needed."""
    prefix = [] if os.geteuid() == 0 else ["sudo", "-n", "--preserve-env=CONTAINERS_CONF"]
    try:
        done = subprocess.run(
            [*prefix, "podman", *argv],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
            stdin=subprocess.DEVNULL,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"podman {argv[0]} took longer than {timeout:g} s") from error
    if done.returncode != 0:
        raise Unavailable((done.stderr or done.stdout).strip()[-400:])
    return done.stdout


def is_running(host: str) -> bool:
    """Whether the host has power."""
    return podman("inspect", "--format", "{{.State.Running}}", f"hms-lab-{host}").strip() == "true"


def on_host(host: str, user: str, *argv: str) -> str:
    """Output of a command inside a host."""
    return podman("exec", "--user", user, f"hms-lab-{host}", *argv)


def rows(text: str) -> list[list[str]]:
    """Lines of psql --csv."""
    return [row for row in csv.reader(io.StringIO(text)) if row]


def psql(host: str, sql: str, *, database: str = DATABASE) -> list[list[str]]:
    """Rows from a server's local socket, as its superuser."""
    return rows(
        on_host(host, "postgres", "psql", "-X", "--csv", "-t", "-v", "ON_ERROR_STOP=1", "-d", database, "-c", sql)
    )


class Problems(list[str]):
    """What is not as it must be."""

    def need(self, holds: bool, text: str) -> None:
        """Note `text` unless it holds."""
        if not holds:
            self.append(text)


def look_at_databases(hosts: t.Iterable[str]) -> dict[str, dict[str, t.Any]]:
    """What each database host says it is."""
    found: dict[str, dict[str, t.Any]] = {}
    for host in hosts:
        if not is_running(host):
            found[host] = {"role": "off"}
            continue
        try:
            recovery, timeline, received = psql(host, _IDENTITY, database="postgres")[0]
        except Unavailable as error:
            found[host] = {"role": "down", "error": str(error)}
            continue
        found[host] = {"role": "standby" if recovery == "t" else "primary", "timeline": timeline or received}
    return found


def check_replication(found: dict[str, dict[str, t.Any]], wanted: argparse.Namespace, problems: Problems) -> str:
    """One primary, the others follow it on its timeline, through slots of their own. Returns the primary."""
    primaries = [host for host, state in found.items() if state["role"] == "primary"]
    one = len(primaries) == 1 and primaries[0] in wanted.primary
    problems.need(one, f"writable servers: {primaries}, expected {' or '.join(wanted.primary)}")
    if not one:
        return ""
    primary = primaries[0]
    slots = {row[0]: row[1:] for row in psql(primary, _SLOTS)}
    senders = {row[0] for row in psql(primary, _SENDERS)}
    found[primary].update(senders=sorted(senders), slots=slots)
    for standby in wanted.standby:
        if standby == primary:
            continue
        state, timeline = found[standby], found[primary]["timeline"]
        problems.need(state["role"] == "standby", f"{standby} is {state['role']}, expected a standby")
        streams = state.get("timeline")
        problems.need(streams == timeline, f"{standby} streams timeline {streams}, {primary} is on {timeline}")
        problems.need(standby in senders, f"{primary} streams to {sorted(senders)}, not to {standby}")
        problems.need(slots.get(standby, ["f"])[0] == "t", f"the slot {standby} on {primary} is not in use")
        stale = [row[0] for row in psql(standby, _SLOTS) if row[1] == "f"] if state["role"] == "standby" else []
        problems.need(not stale, f"slots left on {standby}, which hold its WAL back: {stale}")
    return primary


def consoles(host: str) -> list[str]:
    """The folders of the PgBouncer processes' sockets on a host."""
    return on_host(host, "root", "find", "/run", "-name", f".s.PGSQL.{BOUNCER_PORT}", "-printf", "%h\n").split()


def check_pools(host: str, primary_address: str, processes: int, problems: Problems) -> list[dict[str, t.Any]]:
    """No process holds its clients, and each leads to the primary."""
    found = []
    folders = consoles(host)
    problems.need(len(folders) == processes, f"{host} has {len(folders)} bouncer processes, expected {processes}")
    for folder in folders:
        console = (
            "psql",
            "-X",
            "--csv",
            "-h",
            folder,
            "-p",
            str(BOUNCER_PORT),
            "-U",
            "pgbouncer",
            "pgbouncer",
            "-c",
            "SHOW DATABASES",
        )
        text = on_host(host, "postgres", *console)
        for entry in csv.DictReader(io.StringIO(text)):
            name = entry["name"]
            problems.need(entry["paused"] == "0", f"{name} is paused in {folder} on {host}")
            if name == DATABASE:
                problems.need(
                    entry["host"] == (primary_address or entry["host"]),
                    f"{folder} on {host} leads to {entry['host']}, not to {primary_address}",
                )
                found.append({"socket": folder, "host": entry["host"], "paused": entry["paused"]})
    return found


def write_through(address: str, primary_address: str, problems: Problems) -> str:
    """A client's own write, by TLS and password, and who took it."""
    target = f"service=hospital host={address} port={BOUNCER_PORT}"
    try:
        answer = rows(on_host(CLIENT, "operator", "psql", "-X", "-q", "--csv", "-t", "-d", target, "-c", _WRITE))[0][0]
    except Unavailable as error:
        problems.append(f"no write through {address}: {error}")
        return ""
    problems.need(answer == primary_address, f"a write through {address} went to {answer}, not to {primary_address}")
    return answer


def look(wanted: argparse.Namespace) -> dict[str, t.Any]:
    """One look at everything."""
    problems = Problems()
    found: dict[str, dict[str, t.Any]] = {}
    pools: dict[str, t.Any] = {}
    primary = ""
    try:
        found = look_at_databases(dict.fromkeys([*wanted.primary, *wanted.standby, *wanted.down]))
        primary = check_replication(found, wanted, problems)
        address = on_host(primary, "root", "hostname", "-I").split()[0] if primary else ""
        for name, bouncer_address in (pair.split("=") for pair in wanted.bouncer):
            pools[name] = check_pools(name, address, wanted.processes, problems)
            if address:
                write_through(bouncer_address, address, problems)
    except Unavailable as error:
        problems.append(str(error))
    return {"primary": primary, "databases": found, "bouncers": pools, "problems": list(problems)}


def look_at_pools(wanted: argparse.Namespace) -> dict[str, t.Any]:
    """One look at the bouncers alone, wherever they lead."""
    problems = Problems()
    found: dict[str, t.Any] = {}
    try:
        for name in (pair.split("=")[0] for pair in wanted.bouncer):
            found[name] = check_pools(name, "", wanted.processes, problems)
    except Unavailable as error:
        problems.append(str(error))
    return {"bouncers": found, "problems": list(problems)}


def patiently(wanted: argparse.Namespace) -> dict[str, t.Any]:
    """Look until all is as it must be, or the time is up."""
    started = time.monotonic()
    while True:
        result: dict[str, t.Any] = wanted.look(wanted)
        result["seconds"] = round(time.monotonic() - started, 2)
        if not result["problems"] or result["seconds"] > wanted.within:
            return result
        time.sleep(POLL)


def ledgers(wanted: argparse.Namespace) -> dict[str, t.Any]:
    """What writers were told, against the rows that the primary holds."""
    problems = Problems()
    text = on_host(CLIENT, "root", "sh", "-c", 'cat "$1"/writer-*.jsonl', "sh", wanted.directory)
    entries = [json.loads(line) for line in text.splitlines()]
    if wanted.source:
        entries = [entry for entry in entries if entry[0] in wanted.source]
    stored = {
        (int(source), int(seq))
        for database in wanted.database or [DATABASE]
        for source, seq in psql(wanted.primary, "SELECT source, seq FROM public.ledger_entry", database=database)
    }
    outcomes = collections.Counter(entry[4] for entry in entries)
    acked = [entry for entry in entries if entry[4] == "acked"]
    lost = [entry for entry in acked if (entry[0], entry[1]) not in stored]
    failed_but_there = [entry for entry in entries if entry[4] == "failed" and (entry[0], entry[1]) in stored]
    late = [entry for entry in acked if wanted.since and entry[2] + entry[3] > wanted.since]
    answered = sorted(entry[2] + entry[3] for entry in acked)
    stall = max((after - before for before, after in zip(answered, answered[1:])), default=0.0)
    problems.need(len(acked) >= wanted.at_least, f"only {len(acked)} transactions were acknowledged")
    problems.need(len(lost) <= wanted.may_lose, f"{len(lost)} acknowledged transactions are gone, e.g. {lost[:3]}")
    problems.need(not failed_but_there, f"{len(failed_but_there)} transactions reported as failed are there")
    if wanted.may_fail >= 0:
        bad = [entry for entry in entries if entry[4] != "acked"]
        problems.need(len(bad) <= wanted.may_fail, f"{len(bad)} transactions were not acknowledged, e.g. {bad[:3]}")
    counts = {
        "acknowledged": len(acked),
        "lost": len(lost),
        "acknowledged_since": len(late),
        "longest_stall": round(stall, 3),
    }
    return {**counts, "outcomes": dict(outcomes), "problems": list(problems)}


def leader(wanted: argparse.Namespace) -> dict[str, t.Any]:
    """Who takes writes. One that gives no answer is asked again; two that take them are two."""
    ended = time.monotonic() + wanted.within
    while True:
        found = look_at_databases(wanted.host)
        primaries = [host for host, state in found.items() if state["role"] == "primary"]
        if primaries or time.monotonic() > ended:
            break
        time.sleep(POLL)
    problems = [] if len(primaries) == 1 else [f"writable servers: {primaries}, expected one"]
    return {"primaries": primaries, "databases": found, "problems": problems}


def record(wanted: argparse.Namespace) -> dict[str, t.Any]:
    """The newest record of an operation, and whether its report lies beside it."""
    problems = Problems()
    journals = sorted(pathlib.Path(wanted.directory).glob(f"*-{wanted.operation}-*.json"))
    problems.need(bool(journals), f"no record of a {wanted.operation} in {wanted.directory}")
    if not journals:
        return {"problems": list(problems)}
    document = json.loads(journals[-1].read_text(encoding="utf-8"))
    outcome = document.get("outcome", {})
    status = outcome.get("status")
    problems.need(status == wanted.status, f"{journals[-1].name} says {status}: {outcome.get('message')}")
    page = journals[-1].with_suffix(".html")
    there = page.is_file() and "<html" in page.read_text(encoding="utf-8")[:2000].lower()
    problems.need(there, f"there is no report {page.name}")
    section = document.get("critical_section") or {}
    seconds = section.get("ended", 0.0) - section.get("started", 0.0)
    kept = {key: document.get(key) for key in ("id", "fence", "losses")}
    return {**kept, "outcome": outcome, "critical_seconds": round(seconds, 3), "problems": list(problems)}


def power_off(wanted: argparse.Namespace) -> dict[str, t.Any]:
    """Take a host's power, as a power switch would, and prove that it has none: a fence."""
    if is_running(wanted.host):
        with contextlib.suppress(Unavailable):  # it went off by itself meanwhile
            podman("kill", f"hms-lab-{wanted.host}")
    ended = time.monotonic() + wanted.within
    while True:  # its processes have gone a moment before podman says so
        state = json.loads(podman("inspect", "--format", "{{json .State}}", f"hms-lab-{wanted.host}"))
        power = bool(state["Running"] or state["Pid"])
        if not power or time.monotonic() > ended:
            break
        time.sleep(POLL)
    problems = [f"{wanted.host} still has power"] if power else []
    return {"host": wanted.host, "status": state["Status"], "since": state["FinishedAt"], "problems": problems}


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(required=True)
    command = commands.add_parser("cluster")
    command.set_defaults(look=look)
    command.add_argument("--primary", action="append", required=True, help="the one that leads; repeated: one of them")
    command.add_argument("--standby", action="append", default=[], help="one that must stream, unless it leads")
    command.add_argument("--down", action="append", default=[], help="a host that must not be writable")
    pools = commands.add_parser("pools")
    pools.set_defaults(look=look_at_pools)
    for patient in (command, pools):
        patient.set_defaults(work=patiently)
        patient.add_argument("--bouncer", action="append", default=[], metavar="NAME=ADDRESS")
        patient.add_argument("--processes", type=int, default=2)
        patient.add_argument("--within", type=float, default=15.0, help="seconds until it must be so")
    command = commands.add_parser("ledgers")
    command.set_defaults(work=ledgers)
    command.add_argument("--primary", required=True)
    command.add_argument("--directory", required=True)
    command.add_argument("--database", action="append", help="where the rows may be; repeated: in any of them")
    command.add_argument("--source", type=int, action="append", help="look at this writer alone; may be repeated")
    command.add_argument("--at-least", type=int, default=20)
    command.add_argument("--may-lose", type=int, default=0)
    command.add_argument("--may-fail", type=int, default=-1, help="attempts that may fail; -1 is any number")
    command.add_argument("--since", type=float, default=0.0, help="count acknowledgements after this time")
    command = commands.add_parser("leader")
    command.set_defaults(work=leader)
    command.add_argument("host", nargs="+")
    command.add_argument("--within", type=float, default=60.0, help="seconds until somebody must lead")
    command = commands.add_parser("record")
    command.set_defaults(work=record)
    command.add_argument("--directory", required=True)
    command.add_argument("--operation", required=True)
    command.add_argument("--status", default="done")
    command = commands.add_parser("power-off")
    command.set_defaults(work=power_off)
    command.add_argument("host")
    command.add_argument("--within", type=float, default=20.0, help="seconds until it must be off")
    return parser.parse_args()


def main() -> int:
    """Print what was found."""
    wanted = arguments()
    try:
        result = wanted.work(wanted)
    except Unavailable as error:
        result = {"problems": [str(error)]}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")
    return 1 if result["problems"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
