# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""pg_dump: one database as a stream, or as a folder. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import re
import typing as t

from .._pipeline import Stage
from .._postgres import ConnectionParams

_CONTENTS: dict[str, tuple[str, ...]] = {
    "all": ("--blobs",),
    "data": ("--data-only", "--blobs"),
    "schema": ("--schema-only",),
}
# What a server adds to an error may quote rows: DETAIL:  Key (name)=(…), CONTEXT:  COPY …, line 7: …
_QUOTED_ROWS = re.compile(r"^(?:DETAIL|CONTEXT):.*?(?=^(?:pg_\w+: |HINT: |Command was: )|\Z)", re.MULTILINE | re.DOTALL)
_QUOTED_VALUE = re.compile(r'(invalid input (?:syntax|value) for [^:\n]*: )".*?"$', re.MULTILINE | re.DOTALL)


def without_rows(text: str) -> str:
    """Complaints of a client program without the rows that the server quotes in them."""
    return _QUOTED_VALUE.sub(r"\1…", _QUOTED_ROWS.sub("", text))


def environment(source: ConnectionParams, options: t.Mapping[str, str] | None = None) -> dict[str, str]:
    """The connection as libpq's variables.

    Timeouts for statements are left out, for a dump is one long statement, and so is the encoding: a dump has the
    database's own. `options` are settings of the session.
    """
    found = dataclasses.replace(source, startup_options=False).environment()
    if options:
        found["PGOPTIONS"] = " ".join(f"-c {name}={_escaped(value)}" for name, value in options.items())
    return found


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")


class PgDump:
    """The program of one version, by its path."""

    def __init__(self, program: str, *, os_user: str | None = None) -> None:
        self._program = program
        self._os_user = os_user

    def stage(
        self,
        source: ConnectionParams,
        *,
        contents: str = "all",
        file_format: str = "custom",
        snapshot: str | None = None,
        lock_timeout: float,
        options: t.Mapping[str, str] | None = None,
    ) -> Stage:
        """Dump the database that `source` names to stdout, uncompressed; `contents` is all, data or schema.

        Large objects are asked for by name, since some selections leave them out without a word. Row security is
        never switched on: pg_dump then fails where a policy would hide rows, instead of leaving them out.
        """
        argv = [self._program, f"--format={file_format}", *_CONTENTS[contents]]
        if file_format == "custom":
            argv.append("--compress=0")
        return self._made(argv, source, snapshot=snapshot, lock_timeout=lock_timeout, options=options)

    def directory_stage(
        self,
        source: ConnectionParams,
        directory: str,
        *,
        jobs: int,
        contents: str = "all",
        snapshot: str | None = None,
        lock_timeout: float,
        options: t.Mapping[str, str] | None = None,
    ) -> Stage:
        """Dump into a folder that is not there yet, uncompressed, by several workers. It has nothing to say on stdout.

        The files are not synced: they are read once, by us, and removed.
        """
        argv = [self._program, "--format=directory", *_CONTENTS[contents], "--compress=0", "--no-sync"]
        argv += [f"--jobs={jobs}", f"--file={directory}"]
        return self._made(argv, source, snapshot=snapshot, lock_timeout=lock_timeout, options=options)

    def _made(
        self,
        argv: list[str],
        source: ConnectionParams,
        *,
        snapshot: str | None,
        lock_timeout: float,
        options: t.Mapping[str, str] | None,
    ) -> Stage:
        if snapshot:
            argv.append(f"--snapshot={snapshot}")
        argv += [f"--lock-wait-timeout={max(1, round(lock_timeout * 1000))}", "--no-password"]
        env = environment(source, options)
        return Stage("pg_dump", tuple(argv), env=env, os_user=self._os_user, clean=without_rows)
