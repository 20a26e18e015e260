# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The record of an operation: written as it goes, so that a killed run leaves the truth. PRIVATE to the collection.

On disk: ``<id>.jsonl``, one event a line, appended and synced; at the end ``<id>.json``,
the events folded into one document. A reader that finds only the first folds it itself.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import typing as t

from ._clock import Clock, iso
from ._errors import HmsError
from ._files import dump_json, sync_directory, write_atomic

SCHEMA = 1
_ID = re.compile(r"\d{8}T\d{6}Z-[a-z]+-[0-9a-f]{4}")


def new_id(operation: str, clock: Clock) -> str:
    """An id that sorts by time, e.g. ``20261122T154500Z-failover-3fa9``."""
    return f"{clock.now():%Y%m%dT%H%M%SZ}-{operation}-{secrets.token_hex(2)}"


def is_id(text: str) -> bool:
    """Whether `text` is an id made by `new_id`; ids become file names, so nothing else is taken."""
    return bool(_ID.fullmatch(text))


def fold(events: t.Iterable[t.Mapping[str, t.Any]]) -> dict[str, t.Any]:
    """The document that a sequence of events amounts to.

    An event is ``{"set": {key: value}}`` (replace top-level keys) or ``{"step": {...}}`` (add a step,
    or replace the unfinished one with the same ``id`` and ``host``).
    """
    document: dict[str, t.Any] = {"schema": SCHEMA, "steps": []}
    for event in events:
        document.update(event.get("set") or {})
        step = event.get("step")
        if not step:
            continue
        for index, known in enumerate(document["steps"]):
            if (known["id"], known["host"], known["result"]) == (step["id"], step["host"], "running"):
                document["steps"][index] = dict(step)
                break
        else:
            document["steps"].append(dict(step))
    return document


def read_events(path: str) -> list[dict[str, t.Any]]:
    """The events of a journal; a torn last line, left by a kill, is passed over."""
    events = []
    with open(path, "rb") as source:
        for line in source:
            try:
                events.append(json.loads(line))
            except ValueError:
                break
    return events


class Journal:
    """Appends the events of one operation; every line is on disk before the call returns, unless told `lazy`."""

    def __init__(self, directory: str, identifier: str) -> None:
        if not is_id(identifier):
            raise HmsError(f"{identifier!r} is not an operation's id.", reason="bad_id")
        self.identifier = identifier
        self.directory = directory
        self.path = os.path.join(directory, identifier + ".jsonl")
        os.makedirs(directory, mode=0o700, exist_ok=True)
        self._handle = os.open(self.path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        sync_directory(directory)

    def append(self, event: t.Mapping[str, t.Any], *, lazy: bool = False) -> None:
        """Add one event. `lazy` leaves the sync to the next call: for events inside the critical section."""
        os.write(self._handle, (json.dumps(event, ensure_ascii=False, default=str) + "\n").encode())
        if not lazy:
            os.fdatasync(self._handle)

    def document(self) -> dict[str, t.Any]:
        """What has been written so far, folded."""
        return fold(read_events(self.path))

    def finish(self) -> str:
        """Write ``<id>.json`` beside the journal; returns its path."""
        os.fsync(self._handle)
        path = os.path.join(self.directory, self.identifier + ".json")
        write_atomic(path, dump_json(self.document()))
        return path

    def close(self) -> None:
        """Close the file."""
        os.close(self._handle)


def start_event(
    identifier: str,
    operation: str,
    *,
    cluster: str,
    environment: str,
    by: str,
    parameters: t.Mapping[str, t.Any],
    clock: Clock,
) -> dict[str, t.Any]:
    """The first event of every record."""
    return {
        "set": {
            "schema": SCHEMA,
            "id": identifier,
            "operation": operation,
            "cluster": cluster,
            "environment": environment,
            "asked": {"by": by, "at": iso(clock.now()), "parameters": dict(parameters)},
        }
    }


def list_records(directory: str) -> list[str]:
    """Ids that have a journal or a document in `directory`, oldest first."""
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    stems = {name.rsplit(".", 1)[0] for name in names if name.endswith((".json", ".jsonl"))}
    return sorted(stem for stem in stems if is_id(stem))


def load_record(directory: str, identifier: str) -> dict[str, t.Any] | None:
    """The document of one operation, folded from its journal when it was never finished."""
    if not is_id(identifier):
        raise HmsError(f"{identifier!r} is not an operation's id.", reason="bad_id")
    path = os.path.join(directory, identifier + ".json")
    if os.path.exists(path):
        with open(path, "rb") as source:
            document: dict[str, t.Any] = json.load(source)
        return document
    journal = path + "l"
    return fold(read_events(journal)) if os.path.exists(journal) else None
