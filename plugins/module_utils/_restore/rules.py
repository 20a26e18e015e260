# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What stands against a restore, and what to do about each. PRIVATE. Pure."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._artifact.manifest import Manifest
from .._artifact.running import who
from .._artifact.verify import is_directory
from .._postgres import quote_identifier
from .facts import LiveFacts, TargetFacts
from .find import Artifact, lies_in
from .model import FORCEABLE, Order
from .outline import Outline

PRODUCTION = "production"
_ROOM = 1.1
"""The copy, and a tenth for what is written beside it."""
_MAJOR = re.compile(r"\d+")


@dataclasses.dataclass(frozen=True)
class Refusal:
    """One reason not to, and what to do about it."""

    rule: str
    message: str
    next_step: str

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        return {**dataclasses.asdict(self), "can_be_forced": self.rule in FORCEABLE}


@dataclasses.dataclass(frozen=True)
class Wanted:
    """What the rules look at."""

    order: Order
    artifact: Artifact
    outline: Outline
    target: TargetFacts
    needed: int
    check: bool = False

    @property
    def manifest(self) -> Manifest | None:
        """The artifact's manifest, where it has one."""
        return self.artifact.manifest

    def missing_roles(self) -> tuple[str, ...]:
        """Roles that own or may use something in it, and that this server doesn't have."""
        named = set(self.outline.owners)
        if self.manifest is not None:
            named = set(self.manifest.contents.get("roles") or ())
        return tuple(sorted(named - self.target.roles))


Rule = t.Callable[[Wanted], t.Iterator[Refusal]]


def judge(wanted: Wanted) -> list[Refusal]:
    """Every reason not to, the plainest first."""
    return [refusal for rule in _RULES for refusal in rule(wanted)]


def _order(wanted: Wanted) -> t.Iterator[Refusal]:
    unknown = sorted(wanted.order.force - set(FORCEABLE))
    if unknown:
        yield Refusal(
            "bad_config",
            f"{', '.join(unknown)} can't be forced; what can be: {', '.join(FORCEABLE)}.",
            "Take it out of force.",
        )


def _confirmation(wanted: Wanted) -> t.Iterator[Refusal]:
    order = wanted.order
    if order.confirm and order.confirm != order.database:
        yield Refusal(
            "not_confirmed",
            f"The confirmation is {order.confirm!r}, and the database is {order.database!r}.",
            f"If you mean {order.database}, confirm with its name.",
        )
    elif not order.confirm and order.environment == PRODUCTION and not wanted.check:
        yield Refusal(
            "not_confirmed",
            f"This is production: the restore of {order.database} has to be confirmed.",
            f"Look at the plan (--check --diff), then run again with confirm={order.database}.",
        )


def _server(wanted: Wanted) -> t.Iterator[Refusal]:
    if wanted.target.server.is_standby:
        yield Refusal(
            "standby", "This server is a standby, on which nothing can be restored.", "Run it on the primary."
        )
    if not wanted.target.superuser:
        yield Refusal(
            "not_superuser",
            "The role is no superuser, so owners, rights and extensions could not come back as they were.",
            "Log in as a superuser, as the role postgres does over the local socket.",
        )
    holder = wanted.target.backup
    if holder is not None:
        yield Refusal(
            "backup_running",
            f"A backup of {wanted.order.database} is at work on this host: {who(holder)}.",
            "Wait for it: the swap would end its connection.",
        )


def _origin(wanted: Wanted) -> t.Iterator[Refusal]:
    made, order = wanted.manifest, wanted.order
    if made is None:
        return
    if made.environment == PRODUCTION and order.environment != PRODUCTION and not (order.masks or order.allow_phi):
        yield Refusal(
            "production_data",
            f"{made.id} was taken in production and would go to {order.environment} with its patients' data.",
            "Name SQL files that mask it (mask), or allow it by name (allow_phi: true).",
        )
    system = str(made.server.get("system_identifier", ""))
    here = wanted.target.server.system_identifier
    if system and system != here and not order.allow_other_system:
        yield Refusal(
            "other_system",
            f"{made.id} was taken from the cluster with the system identifier {system}; this one has {here}.",
            "If that is meant, allow it by name (allow_other_system: true).",
        )
    if made.database != order.database and not order.allow_other_database:
        yield Refusal(
            "other_database",
            f"{made.id} is a backup of {made.database}, and {order.database} is to be restored.",
            "If that is meant, allow it by name (allow_other_database: true).",
        )


def _quality(wanted: Wanted) -> t.Iterator[Refusal]:
    artifact, outline, made = wanted.artifact, wanted.outline, wanted.manifest
    if artifact.bad:
        yield Refusal(
            "bad_artifact",
            f"{artifact.name} failed its last verification.",
            "Choose another backup: playbooks/backups.yml shows which hold.",
        )
    if made is not None and made.type == "schema_only":
        yield Refusal(
            "schema_only", f"{artifact.name} holds the structure only; no row would come back.", "Choose a full backup."
        )
    if artifact.kind == "sql" and not wanted.order.allow_plain_sql:
        yield Refusal(
            "plain_sql",
            f"{artifact.name} is an SQL script: whatever stands in it would be run with a superuser's rights.",
            "If you trust where it comes from, allow it by name (allow_plain_sql: true).",
        )
    if artifact.kind == "sql" and outline.problems:
        yield Refusal(
            "malicious_sql",
            f"{artifact.name} holds what is never run: {'; '.join(outline.problems)}.",
            "Find out who wrote that. If it is harmless, take these lines out of a copy and restore the copy.",
        )
    if outline.whole is False:
        yield Refusal(
            "artifact_damaged",
            f"{artifact.name} lacks the line at its end that says it is complete: it is cut short.",
            "Use another copy, or another backup.",
        )


def _major(version: str) -> int:
    match = _MAJOR.match(version)
    return int(match.group()) if match else 0


def _versions(wanted: Wanted) -> t.Iterator[Refusal]:
    outline, server = wanted.outline, wanted.target.server
    dumped = wanted.outline.server
    if wanted.manifest is not None:
        dumped = str(wanted.manifest.server.get("version") or dumped)
    newer = [version for version in (dumped, outline.client) if _major(version) > server.major]
    if newer:
        yield Refusal(
            "dump_newer",
            f"{wanted.artifact.name} was dumped from PostgreSQL {dumped or '?'} with pg_dump {outline.client or '?'};"
            f" this server is {server.version} and can't restore what a newer version wrote.",
            f"Restore it on PostgreSQL {_major(newer[0])}, or choose a backup of this version.",
        )
    elif wanted.artifact.kind == "archive" and outline.problems:
        yield Refusal(
            "not_an_archive",
            f"pg_restore can't read {wanted.artifact.name}: {'; '.join(outline.problems)}",
            "Use another copy, or another backup.",
        )


def _needs(wanted: Wanted) -> t.Iterator[Refusal]:
    made, target, outline = wanted.manifest, wanted.target, wanted.outline
    extensions = set(made.contents.get("extensions") or ()) if made else set(outline.extensions)
    missing = sorted(extensions - set(target.extensions))
    if missing:
        yield Refusal(
            "missing_extensions",
            f"This host lacks the extensions {', '.join(missing)}, which the backup needs.",
            "Install their packages, such as postgresql-15-NAME or postgresql-contrib.",
        )
    roles = wanted.missing_roles()
    if roles and made is not None:
        statements = "; ".join(f"CREATE ROLE {quote_identifier(name)} NOLOGIN" for name in roles)
        yield Refusal(
            "missing_roles",
            f"This server lacks roles that own or use something in the backup: {', '.join(roles)}.",
            f"Make them, with the rights they should have here; roles are never taken from a backup: {statements}.",
        )
    spaces = set(made.contents.get("tablespaces") or ()) if made else set(outline.tablespaces)
    lacking = sorted(spaces - target.tablespaces)
    if lacking:
        yield Refusal(
            "missing_tablespaces",
            f"This server lacks the tablespaces {', '.join(lacking)}.",
            "Make them, or force missing_tablespaces: then everything goes to the database's own.",
        )


def _room(wanted: Wanted) -> t.Iterator[Refusal]:
    target = wanted.target
    needed = int(wanted.needed * _ROOM)
    free = target.free
    if free is not None and wanted.order.strategy == "in_place" and target.live is not None:
        free += target.live.database.bytes
    if free is not None and free < needed:
        yield Refusal(
            "no_room",
            f"The restored copy needs about {needed} bytes beside the live one, and {free} are left.",
            "Make room; or restore with strategy in_place, which drops the live database first.",
        )


def _encoding(wanted: Wanted) -> t.Iterator[Refusal]:
    made, live = wanted.manifest, wanted.target.live
    if made is None or live is None:
        return
    encoding = str(made.server.get("encoding", ""))
    if encoding and encoding != live.database.encoding:
        yield Refusal(
            "encoding_differs",
            f"The backup is in {encoding}, the live database in {live.database.encoding}: text could come back wrong.",
            "Restore it under another name; or force encoding_differs, when all text is known to be convertible.",
        )


def _obstacles(wanted: Wanted) -> t.Iterator[Refusal]:
    live = wanted.target.live
    if live is not None:
        yield from obstacles(live)
        if wanted.order.strategy == "in_place" and live.sessions and wanted.order.sessions == "refuse":
            yield Refusal(
                "sessions",
                f"{live.sessions} sessions are connected to {live.database.name}.",
                "Stop the application, or say what to do with them (sessions: wait or terminate).",
            )


def obstacles(live: LiveFacts) -> t.Iterator[Refusal]:
    """What keeps a database from being renamed, or goes the wrong way with it."""
    name = live.database.name
    if live.prepared:
        yield Refusal(
            "prepared_transactions",
            f"{name} has prepared transactions ({', '.join(live.prepared)}); it can't be renamed or dropped.",
            "Finish each: COMMIT PREPARED or ROLLBACK PREPARED, in the database itself.",
        )
    if live.slots:
        yield Refusal(
            "logical_slots",
            f"{name} has logical replication slots ({', '.join(live.slots)}), which would stay with the old database.",
            "Drop them and make them anew afterwards; or force logical_slots and do it then.",
        )
    if live.subscriptions:
        yield Refusal(
            "subscriptions",
            f"{name} has subscriptions ({', '.join(live.subscriptions)}), which would go on filling the old database.",
            "Disable them; or force subscriptions. They are not restored: make them anew afterwards.",
        )
    if live.cron:
        yield Refusal(
            "pg_cron",
            f"pg_cron's launcher is connected to {name} (cron.database_name) and comes back when it is ended.",
            "Point cron.database_name elsewhere and restart, or force pg_cron: the swap ends it at the right moment.",
        )


_RULES: tuple[Rule, ...] = (
    *(_order, _confirmation, _server, _origin, _quality, _versions),
    *(_needs, _room, _encoding, _obstacles),
)


def warnings_of(wanted: Wanted) -> tuple[str, ...]:
    """What is no reason to stop, and should be known."""
    return (*_artifact_warnings(wanted), *_content_warnings(wanted))


def _artifact_warnings(wanted: Wanted) -> t.Iterator[str]:
    artifact, made = wanted.artifact, wanted.manifest
    order = wanted.order
    if order.environment == PRODUCTION and wanted.check and not order.confirm:
        yield f"The real run needs confirm={order.database}."
    if made is None:
        yield f"verified by manifest: no. Nothing says what {artifact.name} should hold, so no row can be compared."
    elif not artifact.verified:
        yield f"{artifact.name} was never verified."
    if made is None and wanted.missing_roles():
        yield f"It may name roles that this server lacks: {', '.join(wanted.missing_roles())}."
    dumped = _major(wanted.outline.server)
    if dumped and dumped < wanted.target.server.major:
        yield f"It was dumped from PostgreSQL {wanted.outline.server}, and this server is newer. Test the application."
    place = lies_in(artifact, order)
    if place and is_directory(artifact.member):
        yield f"While it is restored it lies unpacked and unencrypted in {place}; it is removed also after a kill."
    elif place:
        yield f"With {order.jobs} jobs the decrypted archive lies in {place}, as a file without a name."


def _content_warnings(wanted: Wanted) -> t.Iterator[str]:
    made, live, target = wanted.manifest, wanted.target.live, wanted.target
    if wanted.outline.subscriptions:
        yield f"{wanted.outline.subscriptions} subscriptions in it are not restored; make them anew afterwards."
    if live is None:
        yield f"There is no database {wanted.order.database} now: nothing will be put aside."
    if made is None:
        return
    for name, version in sorted((made.contents.get("extensions") or {}).items()):
        here = target.extensions.get(name)
        if here is not None and here != version:
            yield f"The extension {name} was {version} and will be {here}."
    if live is not None:
        then = (made.server.get("collate"), made.server.get("ctype"))
        now = (live.database.collate, live.database.ctype)
        if all(then) and then != now:
            yield f"The locale was {'/'.join(map(str, then))} and will be the live database's, {'/'.join(now)}."
