# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What the module pg_backup_info returns: one shape for every engine and store. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import datetime
import typing as t

from .._artifact import pgbackrest_wal as wal
from .._artifact.catalog import Entry
from .._artifact.options import bad_config
from .._artifact.sources import Seen, Sources, look, of_params
from .._clock import Clock, iso, parse_iso
from .._command import CommandRunner
from .._errors import HmsError
from .._module import Result
from .._postgres import connect
from . import policy as policies
from .freshness import SKEW, Demand, Freshness, Point, judge, words
from .model import Wish
from .policy_sources import jobs_of, of_policy


def is_standby(wish: Wish) -> bool:
    """What the server of this host is now; raises `HmsError` when it doesn't say."""
    session = connect(wish.connection, os_user=wish.os_user)
    try:
        return bool(session.value("SELECT pg_catalog.pg_is_in_recovery()"))
    finally:
        session.close()


def info(
    params: t.Mapping[str, t.Any],
    *,
    check_mode: bool,
    runner: CommandRunner,
    clock: Clock,
    asking: t.Callable[[Wish], bool] = is_standby,
) -> Result:
    """The module's work. The cache in the store is no change that anybody would want to be told of."""
    policy = policies.load(params["config_directory"]) if params.get("config_directory") else None
    sources = of_params(params) if policy is None else of_policy(policy, params.get("database"))
    values: dict[str, t.Any] = {
        "at": iso(clock.now()),
        "cluster": sources.cluster,
        "environment": sources.environment,
    }
    gather = params.get("gather") or ["backups"]
    if "server" in gather:
        values["server_role"] = server_role(policy, asking)
    if "backups" in gather:
        jobs = () if policy is None else jobs_of(policy, params.get("database"))
        values.update(_backups(params, sources, jobs, check_mode=check_mode, runner=runner, clock=clock))
    return Result(changed=False, values=values)


def server_role(policy: policies.Policy | None, asking: t.Callable[[Wish], bool]) -> str:
    """What the host's server is; unknown where it doesn't answer."""
    if policy is None:
        raise bad_config("Where the server is stands in backup.json only.", "Give config_directory.")
    wish = policy.jobs[0].wish if policy.jobs else policy.wish()
    try:
        return "standby" if asking(wish) else "primary"
    except HmsError:
        return "unknown"


def _backups(
    params: t.Mapping[str, t.Any],
    sources: Sources,
    jobs: t.Sequence[policies.Job],
    *,
    check_mode: bool,
    runner: CommandRunner,
    clock: Clock,
) -> dict[str, t.Any]:
    seen = look(sources, runner=runner, write_cache=not check_mode)
    now = clock.now()
    fresh = freshness_of(jobs, seen.catalog.entries, now)
    return {
        "backups": describe_all(seen, now, limit=params.get("limit")),
        "total": len({(entry.manifest.database, entry.id) for entry in seen.catalog.entries}),
        "bytes": sum(entry.manifest.bytes for entry in seen.catalog.entries),
        "problems": [problem.as_dict() for problem in seen.catalog.problems],
        "jobs": [job.as_dict() for job in jobs],
        "freshness": [one.as_dict() for one in fresh],
        "fresh": all(one.ok for one in fresh),
        **({"proven": proven_within(params, seen.catalog.entries, now)} if params.get("proven_within") else {}),
    }


def proven_within(
    params: t.Mapping[str, t.Any], entries: t.Iterable[Entry], now: datetime.datetime
) -> dict[str, t.Any]:
    """Whether a restore drill brought any of these backups back as lately as is demanded."""
    try:
        allowed = policies.seconds_of("proven_within", params["proven_within"])
    except ValueError as error:
        raise bad_config(f"{error}.") from error
    drilled = [(entry.restored.at, entry.id) for entry in entries if entry.restored]
    of = f" of {params['database']}" if params.get("database") else ""
    if not drilled:
        told = f"No backup{of} that is there was ever restored by a drill."
        return {"ok": False, "what": told, "id": "", "age": None}
    at, identifier = max(drilled)
    age = (now - parse_iso(at)).total_seconds()
    ok = -SKEW.total_seconds() <= age <= allowed
    told = f"The last restore drill{of} that passed was {words(age)} ago, of {identifier}"
    told += "." if ok else f"; one within {words(allowed)} is demanded."
    return {"ok": ok, "what": told, "id": identifier, "age": round(age)}


def freshness_of(jobs: t.Iterable[policies.Job], entries: t.Iterable[Entry], now: datetime.datetime) -> list[Freshness]:
    """A verdict for each job that demands something."""
    demands = [demand for job in jobs if (demand := Demand.from_dict(job.as_dict())) is not None]
    return judge([Point.of(entry) for entry in entries], demands, now)


def describe_all(seen: Seen, now: datetime.datetime, *, limit: int | None = None) -> list[dict[str, t.Any]]:
    """Every backup once, newest first, with its copies; the newest `limit` of them if that is given."""
    copies: dict[tuple[str, str], list[Entry]] = {}
    for entry in seen.catalog.entries:
        copies.setdefault((entry.manifest.database, entry.id), []).append(entry)
    newest = list(copies.values())[-limit:] if limit and limit > 0 else list(copies.values())
    return [describe(found, seen.windows.get(found[0].id), now) for found in reversed(newest)]


def describe(copies: t.Sequence[Entry], window: wal.Window | None, now: datetime.datetime) -> dict[str, t.Any]:
    """One backup, which may lie in several stores. It is verified when any copy is: from that it can be restored."""
    best = max(copies, key=_proven)
    made, proof, newest = best.manifest, best.proof, best.verification
    return {
        "id": made.id,
        "cluster": made.cluster,
        "environment": made.environment,
        "database": made.database,
        "engine": made.engine,
        "type": made.type,
        "format": made.format,
        "host": made.host,
        "by": made.by,
        "started": made.started,
        "ended": made.ended,
        "seconds": made.seconds,
        "age_seconds": round((now - best.moment).total_seconds()),
        "bytes": made.bytes,
        "database_bytes": made.contents.get("database_bytes"),
        "compression": made.compression.get("method"),
        "encryption": made.encryption.get("method"),
        "recipients": list(made.encryption.get("recipients") or ()),
        "parent": made.parent,
        "verified": best.verified,
        "proof": dataclasses.asdict(proof) if proof else None,
        "verification": dataclasses.asdict(newest) if newest else None,
        "restored_at": max((entry.restored.at for entry in copies if entry.restored), default=None),
        "copies": [_copy(entry) for entry in copies],
        "locked_until": made.expires_locked,
        "held": any(entry.held for entry in copies),
        **_restorable(best, window),
    }


def _proven(entry: Entry) -> tuple[bool, bool, str]:
    return entry.verified, not entry.bad, entry.restored.at if entry.restored else ""


def _copy(entry: Entry) -> dict[str, t.Any]:
    return {"store": entry.store, "verified": entry.verified, "bad": entry.bad}


def _restorable(entry: Entry, window: wal.Window | None) -> dict[str, str | None]:
    """From and to which moment; a dump shows one moment, WAL reaches on until a hole or the newest segment."""
    at = str(entry.manifest.snapshot.get("time") or entry.manifest.started)
    if window is None:
        return {"restorable_from": at, "restorable_to": at}
    end = None if window.end is None else datetime.datetime.fromtimestamp(window.end, datetime.timezone.utc)
    start = datetime.datetime.fromtimestamp(window.start, datetime.timezone.utc)
    # a hole ends it: what is before the hole can be recovered, but nobody has noted when that was
    return {"restorable_from": iso(start), "restorable_to": iso(end) if end else None}
