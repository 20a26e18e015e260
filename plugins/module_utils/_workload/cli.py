# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The command line. Every command prints one JSON document. PRIVATE to the collection."""

from __future__ import annotations

import argparse
import json
import sys
import time
import typing as t

from .._command import SystemRunner
from .._errors import HmsError, Refused
from .._postgres import ConnectionParams, connect
from . import crash, evidence, hospital, ledger, site, supervisor, verdict

FAILED = 1
LOST = 3
"""Exit code of `judge` when acknowledged transactions are gone."""

_ALLOWED = ("host", "port", "user", "dbname", "passfile", "sslmode", "sslrootcert", "connect_timeout")


def endpoint(text: str) -> ConnectionParams:
    """A libpq connection string as parameters."""
    import psycopg
    from psycopg.conninfo import conninfo_to_dict

    try:
        pairs = {key: str(value) for key, value in conninfo_to_dict(text).items()}
    except psycopg.Error as error:
        raise argparse.ArgumentTypeError(f"not a connection string: {str(error).strip()}") from error
    unknown = sorted(set(pairs) - set(_ALLOWED))
    if unknown:
        hint = "; put the password into a passfile" if "password" in unknown else ""
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)} can't be given here{hint}")
    return ConnectionParams(
        host=pairs.get("host", "127.0.0.1"),
        port=int(pairs.get("port", "6432")),
        user=pairs.get("user", "hospital_app"),
        dbname=pairs.get("dbname", "hospital"),
        passfile=pairs.get("passfile"),
        sslmode=pairs.get("sslmode"),
        sslrootcert=pairs.get("sslrootcert"),
        connect_timeout=int(pairs.get("connect_timeout", "30")),
        startup_options=False,
    )


def _load(options: argparse.Namespace) -> dict[str, t.Any]:
    return hospital.load(options.endpoint[0], options.file)


def _start(options: argparse.Namespace) -> dict[str, t.Any]:
    settings = ledger.Settings(
        endpoints=tuple(options.endpoint),
        writers=options.writers,
        rate=options.rate,
        max_seconds=options.max_seconds,
    )
    settings = supervisor.discover(settings)
    return supervisor.start(options.directory, settings, replace=options.replace, ready_timeout=options.ready_timeout)


def _stop(options: argparse.Namespace) -> dict[str, t.Any]:
    return {"stopped": supervisor.stop(options.directory)}


def _mark(options: argparse.Namespace) -> dict[str, t.Any]:
    at = time.time()
    ledger.add_mark(options.directory, ledger.Mark(at=at, name=options.name))
    return {"at": at, "name": options.name}


def _kill(options: argparse.Namespace) -> dict[str, t.Any]:
    if options.only_primary and crash.is_standby(options.data_directory):
        return {"killed": False, "data_directory": options.data_directory}
    if options.after > 0:
        time.sleep(options.after)
    done = crash.kill_instance(options.data_directory)
    if options.directory:
        ledger.add_mark(options.directory, ledger.Mark(at=done["at"], name=evidence.KILL, note=options.data_directory))
    return {"killed": True, **done}


def _judge(options: argparse.Namespace) -> dict[str, t.Any]:
    if options.stop:
        supervisor.stop(options.directory)
    if supervisor.running(options.directory):
        raise Refused(
            "The writers still run; what they write now can't be judged.",
            reason="still_running",
            next_step="Stop them first, or add --stop.",
        )
    settings = ledger.read_settings(options.directory)
    session = connect(options.endpoint[0] if options.endpoint else settings.endpoints[0])
    try:
        found = evidence.examine(options.directory, session, _records(options, settings))
    finally:
        session.close()
    found.update(verdict.conclude(found, verdict.Objectives(rto=options.rto, rpo=options.rpo)))
    if options.finish and found["passed"]:
        site.finish(site.Site(options.finish, ()))
    return found


def _records(options: argparse.Namespace, settings: ledger.Settings) -> list[str]:
    """The records named, and all finished ones of a folder whose operations began after the run."""
    if not options.records:
        return list(options.record)
    return [*options.record, *evidence.records_since(options.records, settings.started)]


def _site(options: argparse.Namespace) -> site.Site:
    return site.Site(options.folder, tuple(options.instance), tuple(options.unit), options.poolers)


def _prepare(options: argparse.Namespace) -> dict[str, t.Any]:
    return site.prepare(_site(options), SystemRunner(), digest=site.digest_of(options.built_from))


def _clean(options: argparse.Namespace) -> dict[str, t.Any]:
    return site.clean(_site(options), SystemRunner())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="workload", description="Writers, their ledgers, and the judge.")
    commands = parser.add_subparsers(dest="command", required=True)

    def command(
        name: str, work: t.Callable[[argparse.Namespace], dict[str, t.Any]], text: str
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(work=work)
        return sub

    load = command("load", _load, "Run the hospital's SQL files as its owner, in one transaction.")
    load.add_argument("file", nargs="+")
    start = command("start", _start, "Start writers in the background; returns when each had an acknowledgement.")
    start.add_argument("--writers", type=int, default=8)
    start.add_argument("--rate", type=float, default=20.0, help="transactions a second and writer at most; 0: no limit")
    start.add_argument("--max-seconds", type=float, default=600.0, help="end by themselves after this time")
    start.add_argument("--ready-timeout", type=float, default=15.0, help="wait so long for the acknowledgements")
    start.add_argument("--replace", action="store_true", help="end and remove an earlier run in the folder")
    stop = command("stop", _stop, "End the writers.")
    mark = command("mark", _mark, "Note a moment.")
    mark.add_argument("name")
    kill = command("kill", _kill, "SIGKILL a whole PostgreSQL instance.")
    kill.add_argument("--data-directory", required=True)
    kill.add_argument("--only-primary", action="store_true", help="leave a standby alone")
    kill.add_argument("--after", type=float, default=0.0, help="wait so many seconds first")
    kill.add_argument("--directory", help="the run's folder; the moment is noted there")
    judge = command("judge", _judge, "Compare the ledgers with the table; put the findings into records.")
    judge.add_argument("--record", action="append", default=[], help="an operation's <id>.json; may be repeated")
    judge.add_argument("--records", help="a folder of records; those of operations since the run's start are taken")
    judge.add_argument("--rto", type=float, default=3600.0, help="seconds that an outage may last")
    judge.add_argument("--rpo", type=float, default=300.0, help="seconds of work that may be lost")
    judge.add_argument("--finish", help="the demo's folder, to note there that a demo that passed went to its end")
    judge.add_argument("--stop", action="store_true", help="end the writers first")
    prepare = command("prepare", _prepare, "Remove what an interrupted demo left; note that a demo is under way.")
    prepare.add_argument(
        "--built-from", action="append", default=[], help="files or folders of the code that builds it"
    )
    for sub in (prepare, command("clean", _clean, "Remove all that the demo made.")):
        sub.add_argument("--folder", required=True, help="the demo's folder")
        sub.add_argument("--instance", action="append", default=[], help="an instance of the demo; may be repeated")
        sub.add_argument("--poolers", type=int, default=1, help="PgBouncer processes of the demo")
        sub.add_argument("--unit", action="append", default=[], help="systemd units of the demo; may be repeated")
    for sub in (start, stop, mark, judge):
        sub.add_argument("--directory", required=True, help="the run's folder")
    for sub, needed in ((load, True), (start, True), (judge, False)):
        sub.add_argument("--endpoint", type=endpoint, action="append", required=needed, help="libpq connection string")
    return parser


def main(arguments: t.Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    try:
        result: dict[str, t.Any] = options.work(options)
    except HmsError as error:
        sys.stderr.write(error.full_text() + "\n")
        sys.stdout.write(json.dumps({"error": error.as_dict()}) + "\n")
        return FAILED
    sys.stdout.write(json.dumps(result) + "\n")
    return LOST if result.get("lost") else 0
