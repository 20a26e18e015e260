# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The proof of a restored database: rows, constraints, indexes, sequences, migrations, assertions. PRIVATE."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import typing as t

from .._artifact.database import Relation, countable, read_relations
from .._artifact.manifest import Manifest
from .._artifact.properties import read_migrations
from .._artifact.scratch import compare
from .._errors import HmsError
from .._postgres import Session, quote_identifier
from .model import Assertion
from .team import Team

_CONSTRAINTS = """
SELECT c.conname::text, c.conrelid::pg_catalog.regclass::text FROM pg_catalog.pg_constraint c
WHERE NOT c.convalidated AND c.conrelid <> 0 ORDER BY 2, 1
"""
_INDEXES = """
SELECT i.indexrelid::pg_catalog.regclass::text, c.relkind::text FROM pg_catalog.pg_index i
JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
WHERE NOT (i.indisvalid AND i.indisready) AND n.nspname !~ '^pg_' ORDER BY 1
"""
_SEQUENCES = """
SELECT s.oid::pg_catalog.regclass::text, n.nspname, r.relname, a.attname, q.seqincrement > 0
FROM pg_catalog.pg_class s
JOIN pg_catalog.pg_sequence q ON q.seqrelid = s.oid
JOIN pg_catalog.pg_depend d ON d.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objid = s.oid
  AND d.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.deptype IN ('a', 'i') AND d.refobjsubid > 0
JOIN pg_catalog.pg_class r ON r.oid = d.refobjid
JOIN pg_catalog.pg_namespace n ON n.oid = r.relnamespace
JOIN pg_catalog.pg_attribute a ON a.attrelid = r.oid AND a.attnum = d.refobjsubid
JOIN pg_catalog.pg_type t ON t.oid = a.atttypid AND t.typname IN ('int2', 'int4', 'int8', 'numeric')
WHERE s.relkind = 'S' AND r.relkind IN ('r', 'p') ORDER BY 1
"""
_AMCHECK = """
SELECT n.nspname FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
WHERE e.extname = 'amcheck'
"""
_BTREES = """
SELECT c.oid::bigint, c.oid::pg_catalog.regclass::text FROM pg_catalog.pg_class c
JOIN pg_catalog.pg_index i ON i.indexrelid = c.oid
JOIN pg_catalog.pg_am m ON m.oid = c.relam AND m.amname = 'btree'
WHERE c.relkind = 'i' AND c.relpersistence = 'p' AND i.indisvalid AND i.indisready ORDER BY 2
"""
_SIZES = "SELECT oid::bigint, pg_catalog.pg_relation_size(oid) FROM pg_catalog.pg_class WHERE relkind = 'r'"
_LARGE = "SELECT pg_catalog.count(*) FROM pg_catalog.pg_largeobject_metadata"
_SHOWN = 10


@dataclasses.dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    detail: str

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data."""
        return dataclasses.asdict(self)


def _few(found: t.Sequence[str]) -> str:
    return "; ".join(found[:_SHOWN]) + (f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def prove(team: Team, manifest: Manifest | None, not_valid: t.Collection[str]) -> list[Check]:
    """Everything that the artifact itself lets us compare, and what must hold in any database."""
    session = team.first
    relations = read_relations(session)
    return [
        _contents(team, manifest, relations),
        _constraints(session, not_valid),
        _indexes(session),
        _sequences(session),
        _btrees(team),
        _migrations(session, manifest, relations),
    ]


def _contents(team: Team, manifest: Manifest | None, relations: t.Sequence[Relation]) -> Check:
    sizes = dict(team.first.rows(_SIZES))
    tables = sorted(countable(relations, is_standby=False), key=lambda table: -int(sizes.get(table.oid) or 0))
    counts = team.share([functools.partial(_count, table) for table in tables])
    found = {table.shown: count for table, count in zip(tables, counts)}
    large = int(team.first.value(_LARGE))
    told = f"{len(found)} tables, {sum(found.values())} rows, {large} large objects"
    if manifest is None:
        return Check("contents", True, f"{told}; there is no manifest to compare them with")
    problems = compare(manifest, found, large)
    if problems:
        return Check("contents", False, "; ".join(problems))
    return Check("contents", True, f"{told}, as in the manifest")


def _count(table: Relation, session: Session) -> int:
    return int(session.value(f"SELECT pg_catalog.count(*) FROM ONLY {table.quoted}"))


def _constraints(session: Session, expected: t.Collection[str]) -> Check:
    found = session.rows(_CONSTRAINTS)
    wrong = [f"{name} of {table}" for name, table in found if name not in expected]
    if wrong:
        return Check("constraints", False, f"not validated: {_few(wrong)}")
    told = f", {len(found)} not validated in the original either" if found else ""
    return Check("constraints", True, f"all hold{told}")


def _indexes(session: Session) -> Check:
    found = session.rows(_INDEXES)
    wrong = [name for name, kind in found if kind == "i"]
    if wrong:
        return Check("indexes", False, f"not valid: {_few(wrong)}")
    parents = [name for name, _kind in found]
    return Check("indexes", True, f"all valid, but partitions lack {_few(parents)}" if parents else "all valid")


def _sequences(session: Session) -> Check:
    """A sequence behind its column fails the next insert; a backup may hold it like that, so it is told."""
    behind = []
    for sequence, schema, table, column, up in session.rows(_SEQUENCES):
        relation = f"{quote_identifier(schema)}.{quote_identifier(table)}"
        extreme = session.value(f"SELECT {'max' if up else 'min'}({quote_identifier(column)}) FROM {relation}")
        last = session.value(f"SELECT last_value FROM {sequence}")
        if extreme is not None and (extreme > last if up else extreme < last):
            behind.append(f"{sequence} is at {last}, {column} of {table} at {extreme}")
    if behind:
        return Check("sequences", True, f"BEHIND THEIR COLUMNS, as in the backup: {_few(behind)}")
    return Check("sequences", True, "none is behind its column")


def _btrees(team: Team) -> Check:
    schema = team.first.value(_AMCHECK)
    if schema is None:
        return Check("amcheck", True, "the extension amcheck is not installed in this database, so it was not asked")
    checked = team.first.rows(_BTREES)
    sound = team.share([functools.partial(_is_sound, schema, oid) for oid, _name in checked])
    wrong = [name for (_oid, name), ok in zip(checked, sound) if not ok]
    if wrong:
        return Check("amcheck", False, f"corrupt: {_few(wrong)}")
    return Check("amcheck", True, f"{len(checked)} indexes checked")


def _is_sound(schema: str, oid: int, session: Session) -> bool:
    try:
        session.execute(f"SELECT {quote_identifier(schema)}.bt_index_check(%s::oid::regclass)", (oid,))
    except HmsError as error:
        if not str(error.details.get("sqlstate") or "").startswith("XX"):
            raise
        return False
    return True


def _migrations(session: Session, manifest: Manifest | None, relations: t.Sequence[Relation]) -> Check:
    found = read_migrations(session, relations)
    told = ", ".join(f"{app} {name}" for app, name in sorted(found.items()))
    expected = dict(manifest.contents.get("migrations") or {}) if manifest else {}
    if manifest is not None and manifest.type == "full" and found != expected:
        then = ", ".join(f"{app} {name}" for app, name in sorted(expected.items())) or "none"
        return Check("migrations", False, f"Django's newest are {told or 'none'} in place of {then}")
    return Check("migrations", True, f"Django's newest: {told}" if told else "no django_migrations")


def ask(session: Session, assertions: t.Sequence[Assertion]) -> list[Check]:
    """The operator's own questions; none of them can change anything."""
    made = []
    for assertion in assertions:
        session.execute("BEGIN READ ONLY")
        try:
            answer = text_of(session.value(assertion.sql))
            ok = answer == text_of(assertion.expect)
            detail = f"answers {answer}" if ok else f"answers {answer} in place of {text_of(assertion.expect)}"
        except HmsError as error:
            ok, detail = False, error.message
        except BaseException:
            # told to end: the answer to this must not take the place of that
            with contextlib.suppress(HmsError):
                session.execute("ROLLBACK")
            raise
        session.execute("ROLLBACK")
        made.append(Check(assertion.name, ok, detail))
    return made


def text_of(value: t.Any) -> str:
    """An answer as text, the same whether it comes from SQL or from YAML."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    text = str(value).strip()
    return text.lower() if text.lower() in ("true", "false", "null") else text


def failed(checks: t.Sequence[Check]) -> HmsError | None:
    """The error for what doesn't hold, None when all does."""
    wrong = [check for check in checks if not check.ok]
    if not wrong:
        return None
    return HmsError(
        f"What was restored is not as it should be: {'; '.join(f'{check.name}: {check.detail}' for check in wrong)}.",
        reason="validation_failed",
        phase="validate",
        next_step="Choose another backup, or correct the assertion.",
        details={"validations": [check.as_dict() for check in checks]},
    )
