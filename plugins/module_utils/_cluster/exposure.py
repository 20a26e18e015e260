# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""When a primary acknowledged writes that no standby need have: ``exposure.jsonl`` in the state directory. PRIVATE.

Two lines to an interval, ``started`` and ``ended``, appended and synced; the last line says whether one is open.
While one is open, what is missing on the standbys may have been acknowledged, whatever ``synchronous_standby_names``
says: it is opened before that is emptied, and closed only when a standby has all that was written before it worked
again.
"""

from __future__ import annotations

import dataclasses
import json
import os
import typing as t

from .._files import read_bytes, sync_directory, write_atomic
from .._postgres import format_lsn
from .member_config import DatabaseHost

FILE_NAME = "exposure.jsonl"
SIZE_LIMIT = 256 * 1024
KEPT_LINES = 500
"""How many of the newest lines stay when the file has grown past its limit."""


@dataclasses.dataclass(frozen=True)
class Mark:
    """One end of an interval."""

    event: t.Literal["started", "ended"]
    at: str
    lsn: int
    reason: str
    confirmed_lsn: int = 0
    """Up to here a standby's slot says that it has everything; 0 where nobody knows."""

    def as_line(self) -> str:
        """As it is written down."""
        line: dict[str, str] = {"event": self.event, "at": self.at, "lsn": format_lsn(self.lsn), "reason": self.reason}
        if self.confirmed_lsn:
            line["confirmed_lsn"] = format_lsn(self.confirmed_lsn)
        return json.dumps(line, ensure_ascii=False) + "\n"


class ExposureFile:
    """The intervals of one host."""

    def __init__(self, state_directory: str) -> None:
        self.path = os.path.join(state_directory, FILE_NAME)

    def marks(self) -> list[dict[str, t.Any]]:
        """All lines, oldest first; what a kill or a full disk left torn is passed over."""
        found = []
        for line in (read_bytes(self.path) or b"").splitlines():
            try:
                mark = json.loads(line)
            except ValueError:
                continue
            if isinstance(mark, dict) and mark.get("event") in ("started", "ended"):
                found.append(mark)
        return found

    def open_since(self) -> str:
        """When the interval began that is still open, or ''."""
        marks = self.marks()
        return str(marks[-1].get("at", "")) if marks and marks[-1]["event"] == "started" else ""

    def append(self, mark: Mark) -> None:
        """Write one line; it is on disk before this returns."""
        content = read_bytes(self.path)
        if content is not None and len(content) > SIZE_LIMIT:
            content = b"".join(content.splitlines(keepends=True)[-KEPT_LINES:])
            write_atomic(self.path, content)
        torn = b"\n" if content and not content.endswith(b"\n") else b""
        handle = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            data = torn + mark.as_line().encode()
            while data:
                data = data[os.write(handle, data) :]
            os.fsync(handle)
        finally:
            os.close(handle)
        if content is None:
            sync_directory(os.path.dirname(self.path))


def exposed_since(host: DatabaseHost) -> str:
    """Since when this host's writes need be on no standby, or ''. Intervals are kept under the policy degrade alone."""
    return ExposureFile(host.state_directory).open_since() if host.sync_policy == "degrade" else ""
