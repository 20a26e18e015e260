# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Prometheus' textfile: what the last runs of the jobs were like. PRIVATE to the collection.

node_exporter reads every ``*.prom`` in a folder. All jobs of a host share one file: each replaces its own series,
those that carry its labels, and leaves the others'. Times are absolute, so that a job that never runs again shows.
"""

from __future__ import annotations

import dataclasses
import math
import os
import re
import typing as t

from .._errors import HmsError
from .._files import HeldLock, read_bytes, write_atomic

KNOWN: dict[str, str] = {
    "hms_backup_last_run_timestamp_seconds": "When the job ended last, whatever came of it.",
    "hms_backup_last_run_success": "1 when the last run did what it should, 0 when it failed.",
    "hms_backup_last_success_timestamp_seconds": "When the newest backup in the catalog was made.",
    "hms_backup_last_verified_timestamp_seconds": "When the newest verified backup in the catalog was made.",
    "hms_backup_age_seconds": "Age of the newest verified backup when this file was written.",
    "hms_backup_max_age_seconds": "How old the newest verified backup may be by the policy.",
    "hms_backup_last_restored_timestamp_seconds": "When a restore drill brought a backup of the job back last.",
    "hms_backup_restored_within_seconds": "How long ago that may be by the policy.",
    "hms_backup_size_bytes": "Bytes that the newest backup takes in the store.",
    "hms_backup_duration_seconds": "How long the newest backup took.",
    "hms_backup_verified": "1 when the newest backup was proven readable, 0 when it was not.",
    "hms_backup_count": "How many backups the catalog holds.",
}
"""The gauges that we write, with what they say."""

_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL = re.compile(r'(?P<name>[a-zA-Z_][a-zA-Z0-9_]*)="(?P<value>(?:[^"\\]|\\.)*)"')
_LINE = re.compile(r"^(?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")
_ESCAPES = {"\\": "\\\\", "\n": "\\n", '"': '\\"'}
_UNESCAPES = {escaped: plain for plain, escaped in _ESCAPES.items()}


@dataclasses.dataclass(frozen=True)
class Sample:
    """One series and its value."""

    name: str
    value: float
    labels: t.Mapping[str, str] = dataclasses.field(default_factory=dict)


def _escape(value: str) -> str:
    return "".join(_ESCAPES.get(character, character) for character in value)


def _unescape(value: str) -> str:
    return re.sub(r"\\.", lambda match: _UNESCAPES.get(match[0], match[0]), value)


def _number(value: float) -> str:
    if math.isnan(value) or math.isinf(value):
        return {True: "NaN"}.get(math.isnan(value), "+Inf" if value > 0 else "-Inf")
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def _series(sample: Sample) -> str:
    labels = ",".join(f'{name}="{_escape(str(value))}"' for name, value in sorted(sample.labels.items()))
    return sample.name + (f"{{{labels}}}" if labels else "")


def render(samples: t.Iterable[Sample]) -> str:
    """The exposition format: grouped by name, each series once (the last value given wins)."""
    by_name: dict[str, dict[str, float]] = {}
    for sample in samples:
        if not _NAME.fullmatch(sample.name):
            raise HmsError(f"{sample.name!r} can't be a metric's name.", reason="defect")
        by_name.setdefault(sample.name, {})[_series(sample)] = sample.value
    lines = []
    for name in sorted(by_name):
        if name in KNOWN:
            lines.append(f"# HELP {name} {KNOWN[name]}")
        lines.append(f"# TYPE {name} gauge")
        lines += [f"{series} {_number(value)}" for series, value in sorted(by_name[name].items())]
    return "".join(line + "\n" for line in lines)


def parse(text: str) -> list[Sample]:
    """What `render` made; lines of anybody else's making are passed over."""
    found = []
    for line in text.splitlines():
        match = _LINE.match(line)
        if not match or line.startswith("#"):
            continue
        try:
            value = float(match["value"])
        except ValueError:
            continue
        labels = {label["name"]: _unescape(label["value"]) for label in _LABEL.finditer(match["labels"] or "")}
        found.append(Sample(match["name"], value, labels))
    return found


def _check_path(path: str) -> str:
    if not path.startswith("/") or not path.endswith(".prom"):
        raise HmsError(
            f"The metrics' path {path!r} has to be absolute and end in .prom: node_exporter reads nothing else.",
            reason="bad_config",
            state="No metrics were written.",
            next_step="Correct metrics.path.",
        )
    return path


def write_textfile(path: str, samples: t.Iterable[Sample]) -> bool:
    """Make the file hold these samples and no others; returns whether it changed. Readers see the old or the new."""
    try:
        # node_exporter runs under an account of its own
        return write_atomic(_check_path(path), render(samples), mode=0o644)
    except OSError as error:
        raise HmsError(
            f"Cannot write the metrics {path}: {os.strerror(error.errno) if error.errno else error}.",
            reason="metrics_failed",
            state="The file holds what it held before.",
            next_step="Create the folder that node_exporter reads (--collector.textfile.directory), or make room.",
        ) from error


def update_textfile(path: str, samples: t.Sequence[Sample], *, owner: t.Mapping[str, str]) -> bool:
    """Replace the series that carry the labels of `owner`; others' stay. Jobs that end together take turns."""
    lock = HeldLock(_check_path(path) + ".lock")
    try:
        taken = lock.acquire({"by": "metrics"})
        kept = parse((read_bytes(path) or b"").decode("utf-8", "replace"))
    except OSError as error:
        lock.release()
        raise HmsError(
            f"Cannot read the metrics {path}: {os.strerror(error.errno) if error.errno else error}.",
            reason="metrics_failed",
            state="The file holds what it held before.",
            next_step="Look at the folder that node_exporter reads (--collector.textfile.directory).",
        ) from error
    try:
        if taken is not None:
            raise HmsError(
                f"Cannot write the metrics {path}: another job is writing them.",
                reason="metrics_failed",
                state="The file holds what it held before.",
                next_step="The next run writes them.",
            )
        foreign = [sample for sample in kept if any(sample.labels.get(name) != value for name, value in owner.items())]
        return write_textfile(path, [*foreign, *samples])
    finally:
        lock.release()
