# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Plain SQL scripts, split into statements by us; psql, through which they could reach a shell, is not used. PRIVATE.

Old dumps are scripts. psql obeys a backslash in them with a shell, files and other databases; here such a line is
refused before anything runs. So is what reaches beyond the database that is restored.
"""

from __future__ import annotations

import re
import typing as t

from .._errors import HmsError

STATEMENT_LIMIT = 256 * 1024 * 1024
_SHOWN = 5

_TOKEN = re.compile(
    rb"'|\"|--|/\*|\$(?:[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff]*)?\$|\\|;|\(|\)"
    rb"|[A-Za-z_\x80-\xff][A-Za-z0-9_\x80-\xff$]*"
)
_COMMENT = re.compile(rb"/\*|\*/")
_ESCAPED = re.compile(rb"\\.|''|'", re.DOTALL)
_QUOTED = {b"'": re.compile(rb"''|'"), b'"': re.compile(rb'""|"')}
_COPY_IN = re.compile(rb"copy\b.* from stdin\b")
_COPY_END = re.compile(rb"(?m)^\\\.\r?\n")
_HARMLESS = re.compile(rb"\\(un)?restrict [A-Za-z0-9]+\s*")
_COMPLETE = b"-- PostgreSQL database dump complete"
_BEGUN = b"-- PostgreSQL database dump"
_GUARDED = {b"alter", b"copy", b"create", b"drop", b"load", b"set"}
"""First words of statements whose form is looked at."""
_BEYOND = (
    ("ALTER SYSTEM", re.compile(rb"alter system\b")),
    (
        "a statement about databases, roles or tablespaces",
        re.compile(rb"(create|alter|drop) (database|role|user(?! mapping)|group|tablespace)\b"),
    ),
    ("COPY with a program", re.compile(rb"copy\b.* (from|to) program\b")),
    ("COPY with a file of the server's", re.compile(rb"copy\b.* (from|to) ((e|u) )?'")),
    ("SET SESSION AUTHORIZATION", re.compile(rb"set session authorization\b")),
    ("LOAD", re.compile(rb"load ")),
    (
        "standard_conforming_strings = off",
        re.compile(rb"set ((session|local) )?standard_conforming_strings (to )?(off|false|no)\b"),
    ),
)


class Splitter:
    """Splits a script as it comes. What it finds is told to `statement`, `copy_data`, `copy_end` and `command`."""

    def __init__(self) -> None:
        self.line_number = 0
        self._rest = b""
        self._statement: list[bytes] = []
        self._size = 0
        self._mode: bytes = b""
        """'' outside; what ends a quoted text or $body$; e' for an escape string; * inside a comment."""
        self._depth = 0
        self._parens = 0
        self._begins = 0
        self._words: list[bytes] = []
        self._form: list[bytes] = []
        self._begun_one = False
        """Whether there is more of the statement at hand than comments."""
        self._copying = False

    @property
    def form(self) -> bytes:
        """The statement at hand without comments, and with a quote for each text; '' where it isn't looked at."""
        return b" ".join(self._form)

    def statement(self, text: bytes) -> None:
        """A whole statement."""

    def copy_data(self, data: bytes) -> None:
        """Rows of a COPY … FROM stdin."""

    def copy_end(self) -> None:
        """The end of such rows."""

    def command(self, text: bytes) -> None:
        """A command to psql."""

    def seen(self, line: bytes) -> None:
        """Each line that is no row."""

    def feed(self, data: bytes) -> None:
        """The next bytes of the script."""
        self._rest += data
        while self._copy() if self._copying else self._lines():
            pass

    def _lines(self) -> bool:
        """Take whole lines; whether rows begin after one of them."""
        start = 0
        while not self._copying:
            end = self._rest.find(b"\n", start)
            if end < 0:
                break
            line = self._rest[start : end + 1]
            start = end + 1
            self._line(line)
        self._rest = self._rest[start:]
        if len(self._rest) > STATEMENT_LIMIT and not self._copying:
            raise self._error("holds a line that is too long to be restored")
        return self._copying

    def _copy(self) -> bool:
        """Pass rows on; whether their end was found."""
        match = _COPY_END.search(self._rest)
        whole = self._rest.rfind(b"\n") + 1 if match is None else match.start()
        if whole:
            self.line_number += self._rest.count(b"\n", 0, whole)
            self.copy_data(self._rest[:whole])
        if match is None:
            self._rest = self._rest[whole:]
            return False
        self.line_number += 1
        self._rest = self._rest[match.end() :]
        self._copying = False
        self.copy_end()
        return True

    def end(self) -> None:
        """The script is at its end; raises when it is cut short."""
        if self._copying:
            self.feed(b"\n")
        if self._rest and not self._copying:
            line, self._rest = self._rest + b"\n", b""
            self._line(line)
        if self._copying or self._mode or self._parens or self._begun_one:
            raise self._error("ends in the middle of a statement: it is cut short")

    def _error(self, what: str) -> HmsError:
        return HmsError(
            f"The script {what} (line {self.line_number}).",
            reason="artifact_damaged",
            phase="read",
            next_step="Use another copy, or another backup.",
        )

    def _line(self, line: bytes) -> None:
        self.line_number += 1
        self.seen(line)
        at = kept = 0
        while at < len(line):
            if self._mode:
                at = self._inside(line, at)
                continue
            token = _TOKEN.search(line, at)
            if token is None:
                break
            word, at = token.group(), token.end()
            if word == b"--":
                line = line[: token.start()] + b"\n"
                break
            if word == b"\\":
                self.command(line[token.start() :].strip())
                line = line[: token.start()] + b"\n"
                break
            if word == b";" and not self._parens and not self._begins:
                self._keep(line[kept:at])
                kept = at
                self._finish()
                if self._copying:
                    return
                continue
            self._take(word, line, at)
        self._keep(line[kept:])

    def _keep(self, part: bytes) -> None:
        if not self._statement and not part.strip():
            return
        self._statement.append(part)
        self._size += len(part)
        if self._size > STATEMENT_LIMIT:
            raise self._error("holds a statement that is too long to be restored")

    def _finish(self) -> None:
        text = b"".join(self._statement)
        if text.strip(b"; \t\r\n"):
            self.statement(text)
            self._copying = bool(_COPY_IN.match(self.form))
        self._statement, self._size, self._words, self._form = [], 0, [], []
        self._begun_one = False

    def _take(self, word: bytes, line: bytes, at: int) -> None:
        """Outside of everything: what a token opens or closes."""
        self._begun_one = self._begun_one or word != b"/*"
        if word != b"/*" and (self._form or word.lower() in _GUARDED) and (self._form or not self._words):
            self._form.append(b"'" if word.startswith(b"$") else word.lower())
        if word in (b"'", b'"'):
            escape = word == b"'" and self._is_escape(line, at - 1)
            self._mode = b"e'" if escape else word
        elif word == b"/*":
            self._mode, self._depth = b"*", 1
        elif word.startswith(b"$"):
            self._mode = word
        elif word == b"(":
            self._parens += 1
        elif word == b")":
            self._parens = max(0, self._parens - 1)
        elif word != b";":
            self._identifier(word.lower())

    @staticmethod
    def _is_escape(line: bytes, quote: int) -> bool:
        before = line[max(0, quote - 2) : quote]
        return before[-1:] in (b"e", b"E") and not (before[:-1].isalnum() or before[:-1] in (b"_", b"$"))

    def _identifier(self, word: bytes) -> None:
        """Bodies of functions may be statements: CREATE FUNCTION … BEGIN ATOMIC …; …; END."""
        if len(self._words) < 4:
            self._words.append(word)
        routine = self._words[:1] == [b"create"] and (
            self._words[1:2] in ([b"function"], [b"procedure"])
            or (self._words[1:3] == [b"or", b"replace"] and self._words[3:4] in ([b"function"], [b"procedure"]))
        )
        if not routine or self._parens:
            return
        if word == b"begin" or (word == b"case" and self._begins):
            self._begins += 1
        elif word == b"end" and self._begins:
            self._begins -= 1

    def _inside(self, line: bytes, at: int) -> int:
        """Inside a text, a body or a comment: where it goes on."""
        mode = self._mode
        if mode == b"*":
            match = _COMMENT.search(line, at)
            if match is None:
                return len(line)
            self._depth += 1 if match.group() == b"/*" else -1
            if not self._depth:
                self._mode = b""
            return match.end()
        if mode.startswith(b"$"):
            found = line.find(mode, at)
            if found < 0:
                return len(line)
            self._mode = b""
            return found + len(mode)
        match = (_ESCAPED if mode == b"e'" else _QUOTED[mode]).search(line, at)
        if match is None:
            return len(line)
        if len(match.group()) == 1:
            self._mode = b""
        return match.end()


class Checker(Splitter):
    """Reads a script and notes what is never run; runs nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.problems: list[str] = []
        self.watch: t.Callable[[bytes], None] | None = None
        self._begun = self._complete = False

    @property
    def whole(self) -> bool | None:
        """Whether a script of pg_dump's says that it is complete; None for others."""
        return self._complete if self._begun else None

    def end(self) -> None:
        """The script is at its end. What stands after a command that is never run is no statement's to finish."""
        try:
            super().end()
        except HmsError:
            if not self.problems:
                raise

    def _note(self, what: str) -> None:
        if len(self.problems) < _SHOWN:
            self.problems.append(f"line {self.line_number} holds {what}")

    def seen(self, line: bytes) -> None:
        stripped = line.strip()
        self._begun = self._begun or stripped == _BEGUN
        self._complete = self._complete or stripped == _COMPLETE
        if self.watch is not None:
            self.watch(line)

    def statement(self, text: bytes) -> None:
        """Judge it by its form, which is kept apart from what its quotes hold."""
        del text
        for name, pattern in _BEYOND:
            if pattern.match(self.form):
                self._note(name)

    def command(self, text: bytes) -> None:
        if not _HARMLESS.fullmatch(text):
            word = text.split()[0][:20].decode("utf-8", "replace")
            self._note(f"the psql command {word}")
