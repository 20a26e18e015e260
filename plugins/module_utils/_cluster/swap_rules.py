# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What forbids a swap of two databases. Pure. PRIVATE.

Every rule has a name; where it is overridable, naming it in ``force`` overrides this one and no other.
"""

from __future__ import annotations

import typing as t

from .._tools.database_rename import CLIENTS, HELPERS, INVALID, SYSTEM, Attached, Database, Obstacles
from . import swap_services
from .model import ClusterFacts, MemberFacts
from .plan import Refusal as Rule
from .plan import leader
from .swap_model import Inside, Names, Routes, Sight, SwapRequest

OWN = frozenset({"hms.postgres", "hms.postgres.swap", "hms.postgres sync-guard"})
"""How sessions of this collection introduce themselves that last a moment, or can be begun again."""
BACKUPS = frozenset({"hms.postgres backup", "pg_dump", "pg_dumpall", "pg_restore"})
"""How those introduce themselves that must not be ended by the way."""


def all_of(facts: ClusterFacts, sight: Sight, request: SwapRequest) -> list[Rule]:
    """Everything that forbids it, the gravest first."""
    primary = leader(facts)
    found = [*consent(facts, request), *swap_services.rules(sight, request)]
    if primary is None:
        return [*_primary(facts), *found]
    names = sight.names
    if names.wrong is not None:
        rule, message, step = names.wrong
        return [Rule(rule, message, step, False), *found]
    if names.missing:
        text = f"There is no database {names.live!r}: {names.scratch} would get its name, and nothing would be kept."
        found.append(Rule("no_database", text, "Is the name right? Override it if somebody dropped that database."))
    if sight.inside is not None:
        found += _databases(sight)
        found += _obstacles(names.live, sight.inside.live)
        found += _obstacles(names.scratch, sight.inside.scratch)
        found += _rights(names, sight.inside)
        found += _sessions(names, sight, request)
    found += _synchronous(primary)
    found += _poolers(facts, sight.routes)
    return found


def consent(facts: ClusterFacts, request: SwapRequest) -> list[Rule]:
    """Whether the operator named the database that this is."""
    if request.check_only or request.confirm == request.database:
        return []
    step = f"Give confirm={request.database}, if it is the one you mean."
    if request.confirm:
        text = f"confirm is {request.confirm!r}, but the database is {request.database!r}."
        return [Rule("wrong_confirm", text, step, False)]
    if facts.environment == "production":
        text = "This is production: the database's name must be given as confirm."
        return [Rule("no_confirm", text, step, False)]
    return []


def _primary(facts: ClusterFacts) -> list[Rule]:
    names = ", ".join(member.name for member in facts.primaries)
    if names:
        text = f"More than one member takes writes: {names}. They have diverged or will."
        return [Rule("two_primaries", text, "Stop the one clients don't use, now; then rejoin it.", False)]
    return [Rule("no_primary", "No member that can be reached takes writes.", "Start the primary first.", False)]


def _databases(sight: Sight) -> t.Iterator[Rule]:
    names = sight.names
    for name in (names.live, names.scratch):
        found = sight.database(name)
        if name in SYSTEM:
            yield Rule("system_database", f"{name} belongs to PostgreSQL itself.", "Name another database.", False)
        elif found is not None and found.template:
            text = f"{name} is marked as a template: whoever may create databases can copy it."
            yield Rule("template_database", text, f"ALTER DATABASE … IS_TEMPLATE false, if {name} isn't meant as one.")
    scratch, inside = sight.database(names.scratch), sight.inside
    if scratch is not None and scratch.connection_limit == INVALID:
        text = f"{names.scratch} is what an interrupted DROP DATABASE left."
        yield Rule("scratch_invalid", text, "Drop it, and restore once more.", False)
    elif inside is not None and inside.scratch_error:
        text = f"{names.scratch} can't be looked into: {inside.scratch_error}"
        yield Rule("scratch_closed", text, "ALTER DATABASE … ALLOW_CONNECTIONS true, then run it again.", False)


def _obstacles(name: str, found: Obstacles) -> t.Iterator[Rule]:
    if found.prepared_transactions:
        gids = ", ".join(map(repr, found.prepared_transactions))
        text = f"{name} has prepared transactions ({gids}): a database with such is never renamed."
        step = "COMMIT PREPARED or ROLLBACK PREPARED each, connected to that database; pg_prepared_xacts lists them."
        yield Rule("prepared_transactions", text, step, False)
    if found.logical_slots:
        text = f"Logical slots belong to {name} ({', '.join(found.logical_slots)}): they would stay with it."
        yield Rule("logical_slots", text, "Drop them and make them again afterwards, or accept that they follow it.")
    if found.subscriptions:
        names = ", ".join(found.subscriptions)
        text = f"Subscriptions belong to {name} ({names}): they would follow it and go on applying there."
        yield Rule("subscriptions", text, "ALTER SUBSCRIPTION … DISABLE there first, or accept that they follow it.")
    if found.cron:
        text = f"pg_cron keeps its jobs in {name}, by that name: afterwards it would run those of the other database."
        yield Rule("pg_cron", text, "See that cron.job in both holds what you want, then override.")


def _rights(names: Names, inside: Inside) -> t.Iterator[Rule]:
    if inside.shut_out:
        text = f"{', '.join(inside.shut_out)} may connect to {names.live} and could not to {names.scratch}."
        yield Rule("connect_lost", text, f"GRANT CONNECT ON DATABASE {names.scratch} to them, as on {names.live}.")


def strangers(attached: t.Iterable[Attached], pids: t.Collection[int], monitor: str = "") -> list[Attached]:
    """Sessions that are neither a pool's, nor the server's helpers, nor this collection's own."""
    return [
        one
        for one in attached
        if one.pid not in pids
        and one.kind not in HELPERS
        and one.application_name not in OWN
        and not (monitor and one.user == monitor)
    ]


def pool_pids(routes: t.Iterable[Routes]) -> frozenset[int]:
    """Backends that belong to the bouncers."""
    return frozenset(pid for each in routes for pid in each.pids)


def _sessions(names: Names, sight: Sight, request: SwapRequest) -> t.Iterator[Rule]:
    inside, pids = sight.inside, pool_pids(sight.routes)
    if inside is None:  # pragma: no cover  asked only when it was looked at
        return
    past = strangers(inside.attached, pids)
    workers = [one for one in past if one.kind not in CLIENTS]
    if workers:
        text = f"Background workers are connected: {_listed(workers)}. They would be ended, and may come back."
        yield Rule("background_workers", text, "Stop what starts them, or override.")
    inside_scratch = [one for one in past if one.database == names.scratch and one.kind in CLIENTS]
    if inside_scratch:
        text = f"Somebody is connected to {names.scratch}: {_listed(inside_scratch)}."
        yield Rule("scratch_connected", text, "Let them end. Overridden, they are ended.")
    backups = [one for one in past if one.application_name in BACKUPS]
    if backups:
        text = f"A backup or a restore is at work: {_listed(backups)}. It would be cut."
        yield Rule("backup_running", text, "Wait until it is done.")
    direct = [one for one in past if one.database == names.live and one.kind in CLIENTS]
    if direct and request.sessions == "refuse":
        text = f"Sessions are connected to {names.live} past the bouncers: {_listed(direct)}."
        yield Rule("sessions_connected", text, "End them, or say sessions: terminate or wait.", False)
    long = [
        one for one in inside.attached if one.pid in pids and one.in_transaction and one.age > request.hold_deadline
    ]
    if long:
        text = f"Transactions have run for longer than hold_deadline ({request.hold_deadline:g} s): {_listed(long)}."
        yield Rule("long_transactions", text, "Let them end, end them, or raise hold_deadline.")


def _listed(sessions: t.Sequence[Attached], most: int = 3) -> str:
    words = "; ".join(one.words for one in sessions[:most])
    return words if len(sessions) <= most else f"{words}; and {len(sessions) - most} more"


def _synchronous(primary: MemberFacts) -> t.Iterator[Rule]:
    wanted = primary.settings.get("synchronous_standby_names", "")
    if wanted and not any(sender.sync_state in ("sync", "quorum") for sender in primary.senders):
        text = f"Commits on {primary.name} wait for a synchronous standby, and none streams: the swap's would wait too."
        yield Rule("no_sync_standby", text, "Bring a standby back: playbooks/rejoin.yml.")


def _poolers(facts: ClusterFacts, routes: t.Sequence[Routes]) -> t.Iterator[Rule]:
    for pooler in facts.poolers:
        broken = [process.name for process in pooler.processes if not process.reachable]
        text = ""
        if not pooler.reachable:
            text = f"The bouncer host {pooler.name} can't be reached: {pooler.error}"
        elif broken:
            text = f"PgBouncer processes {', '.join(broken)} on {pooler.name} don't answer on their console."
        if text:
            yield Rule("bouncer_unreachable", text, "Bring it back. If it is dead and no client can use it, override.")
    for route in routes:
        if len({route.names(process) for process in route.processes}) > 1:
            text = f"The processes of {route.host} don't offer the same databases."
            yield Rule("processes_differ", text, "RELOAD them, or run playbooks/site.yml.", False)
        if any(entry.pool_mode == "session" for entry in route.entries):
            text = f"{route.host} pools by session: holding its clients would wait until they disconnect."
            yield Rule("session_pooling", text, "Use transaction pooling.")


def differences(live: Database, scratch: Database) -> list[str]:
    """What the new database has otherwise than the present one, in words; it forbids nothing."""
    pairs = {
        "owner": (live.owner, scratch.owner),
        "encoding": (live.encoding, scratch.encoding),
        "collation": (live.collation, scratch.collation),
        "character type": (live.character_type, scratch.character_type),
        "connection limit": (live.connection_limit, scratch.connection_limit),
    }
    return [f"{what} {new} instead of {old}" for what, (old, new) in pairs.items() if old != new]
