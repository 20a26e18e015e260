# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an archive or a script would make, read before anything is touched. PRIVATE.

An archive's structure comes as SQL text from pg_restore; a script is read whole by the same splitter that runs it.
"""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._errors import HmsError
from .._pipeline import Tap
from .._tools.pg_restore import HEAD, ArchiveHead, PgRestore, parse_head
from .find import Artifact
from .pour import Pourer
from .sql_script import Checker

_IDENT = rb'(?P<name>"(?:[^"]|"")+"|[A-Za-z_\x80-\xff][\w$\x80-\xff]*)'
_OWNER = re.compile(rb"ALTER .* OWNER TO " + _IDENT + rb";\s*$", re.DOTALL)
_EXTENSION = re.compile(rb"CREATE EXTENSION (?:IF NOT EXISTS )?" + _IDENT)
_TABLESPACE = re.compile(rb"SET default_tablespace = '?" + _IDENT)
_NOT_VALID = re.compile(rb"\s*ADD CONSTRAINT " + _IDENT + rb" .*\bNOT VALID;\s*$")
_DUMPED = re.compile(rb"-- Dumped (?P<what>from database|by pg_dump) version (?P<version>\d[\w.]*)")
_SUBSCRIPTION = re.compile(rb"CREATE SUBSCRIPTION ")
_LINE = 65536


@dataclasses.dataclass(frozen=True)
class Outline:
    """What stands in it.

    Attributes:
        server, client: versions of the server that was dumped and of pg_dump, '' where nothing says them.
        not_valid: constraints that were not validated when it was dumped.
        problems: what a script holds that is never run.
        whole: whether a script's last line says that it is complete; None where nothing could say it.
    """

    server: str = ""
    client: str = ""
    owners: frozenset[str] = frozenset()
    extensions: frozenset[str] = frozenset()
    tablespaces: frozenset[str] = frozenset()
    not_valid: frozenset[str] = frozenset()
    subscriptions: int = 0
    problems: tuple[str, ...] = ()
    whole: bool | None = None


def _unquoted(name: bytes) -> str:
    text = str(name, "utf-8", "replace")
    return text[1:-1].replace('""', '"') if text.startswith('"') else text


class LineReader:
    """Takes note of what lines of a dump tell; each is looked at up to a length."""

    def __init__(self) -> None:
        self._rest = b""
        self.versions: dict[str, str] = {}
        self.found: dict[str, set[str]] = {"owner": set(), "extension": set(), "tablespace": set(), "not_valid": set()}
        self.subscriptions = 0

    def __call__(self, data: bytes) -> None:
        *lines, rest = (self._rest + data).split(b"\n")
        self._rest = rest[:_LINE]
        for line in lines:
            self.line(line[:_LINE])

    def line(self, line: bytes) -> None:
        """One line."""
        if line.startswith(b"--"):
            match = _DUMPED.match(line)
            if match:
                self.versions["server" if match["what"] == b"from database" else "client"] = str(
                    match["version"], "ascii", "replace"
                )
            return
        for kind, pattern in (("owner", _OWNER), ("extension", _EXTENSION), ("not_valid", _NOT_VALID)):
            match = pattern.match(line)
            if match:
                self.found[kind].add(_unquoted(match["name"]))
        match = _TABLESPACE.match(line)
        if match and _unquoted(match["name"]):
            self.found["tablespace"].add(_unquoted(match["name"]))
        self.subscriptions += bool(_SUBSCRIPTION.match(line))

    def outline(self, **more: t.Any) -> Outline:
        """What was noted."""
        values: dict[str, t.Any] = {
            "server": self.versions.get("server", ""),
            "client": self.versions.get("client", ""),
        }
        return Outline(
            **{**values, **more},
            owners=frozenset(self.found["owner"]),
            extensions=frozenset(self.found["extension"]),
            tablespaces=frozenset(self.found["tablespace"]),
            not_valid=frozenset(self.found["not_valid"]),
            subscriptions=self.subscriptions,
        )


class _Head:
    """The beginning of an archive as it passes."""

    def __init__(self) -> None:
        self.data = b""

    def __call__(self, data: bytes) -> None:
        if len(self.data) < HEAD:
            self.data += data[: HEAD - len(self.data)]

    def parse(self) -> ArchiveHead | None:
        """What it says; None where nothing came so far."""
        return parse_head(self.data) if self.data else None


def read_outline(artifact: Artifact, pourer: Pourer, pg_restore: PgRestore) -> Outline:
    """Look into the artifact: one pass over its small archive of the structure, or over all of it."""
    if artifact.kind == "sql":
        return _read_script(artifact, pourer)
    head, lines = _Head(), LineReader()
    failed: HmsError | None = None
    try:
        pourer.pour(
            artifact.schema or artifact.member,
            what=f"Reading the structure of {artifact.name}",
            last=[Tap("head", head), pg_restore.structure_stage()],
            sink=lines,
        )
    except HmsError as error:
        if error.reason != "restore_failed":
            raise
        failed = error
    try:
        found = head.parse()
    except ValueError as error:
        raise _unreadable(artifact, f"{error}") from error
    versions: dict[str, t.Any] = {}
    if found is not None:
        versions = {"server": _first(found.server), "client": _first(found.client)}
    if failed is not None:
        if found is None:
            raise failed
        return Outline(**versions, problems=(failed.message,))
    return lines.outline(**versions)


def _first(text: str) -> str:
    return (text.split() or [""])[0]


def _read_script(artifact: Artifact, pourer: Pourer) -> Outline:
    checker, lines = Checker(), LineReader()

    def sink(data: bytes) -> None:
        checker.feed(data)

    checker.watch = lines.line
    pourer.pour(artifact.member, what=f"Reading {artifact.name}", sink=sink)
    checker.end()
    return lines.outline(problems=tuple(checker.problems), whole=checker.whole)


def _unreadable(artifact: Artifact, why: str) -> HmsError:
    return HmsError(
        f"{artifact.name} can't be read by pg_restore: {why}.",
        reason="not_an_archive",
        phase="look",
        state="Nothing was touched.",
        next_step="Give a custom archive of pg_dump (-Fc), or an SQL script whose name ends like .sql or .sql.gz.",
    )
