# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Targets out of what people type, and which of two comes first. PRIVATE."""

from __future__ import annotations

import datetime
import re
import typing as t

from .._clock import parse_iso
from .._errors import Refused
from .._postgres import format_lsn, parse_lsn
from .model import Located, Position, Target

_TIME = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})[ T](?P<clock>\d{2}:\d{2}(?::\d{2})?)(?P<fraction>\.\d{1,6})?\d*"
    r" ?(?P<zone>Z|UTC|[+-]\d{2}(?::?\d{2})?)?"
)
_LSN = re.compile(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}")
_XID = re.compile(r"[1-9]\d{0,19}")
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,63}")


def _bad(message: str, next_step: str, reason: str = "bad_target") -> Refused:
    return Refused(message, reason=reason, phase="target", state="Nothing was touched.", next_step=next_step)


def parse_time(text: str, what: str = "target_time") -> datetime.datetime:
    """A moment with its zone; one without is refused, for it would mean another moment on each host."""
    match = _TIME.fullmatch(text.strip())
    example = "Write it as 2025-06-22 12:00:00+02, or with Z for UTC."
    if match is None:
        raise _bad(f"{what}: {text!r} is no time that we know.", example)
    zone = match["zone"]
    if zone is None:
        raise _bad(
            f"{what}: {text!r} says no time zone.", f"Say which zone is meant: {text.strip()}+02, or …Z.", "no_zone"
        )
    offset = "+00:00" if zone in ("Z", "UTC") else zone.replace(":", "").ljust(5, "0")
    offset = offset if ":" in offset else f"{offset[:3]}:{offset[3:]}"
    clock = match["clock"] if match["clock"].count(":") == 2 else match["clock"] + ":00"
    fraction = (match["fraction"] or "").ljust(7, "0") if match["fraction"] else ""
    try:
        moment = datetime.datetime.fromisoformat(f"{match['day']}T{clock}{fraction}{offset}")
    except ValueError as error:
        raise _bad(f"{what}: {text!r} is no time: {error}.", example) from error
    return moment.astimezone(datetime.timezone.utc)


def postgres_time(moment: datetime.datetime) -> str:
    """A moment as PostgreSQL reads it, in UTC."""
    return f"{moment.astimezone(datetime.timezone.utc):%Y-%m-%d %H:%M:%S.%f}+00"


def moment_of(target: Target) -> datetime.datetime:
    """The moment of a target by time."""
    return parse_iso(target.value)


def time_target(text: str, *, inclusive: bool | None, timeline: int) -> Target:
    """By time: the last transaction that was committed then or before."""
    return Target("time", postgres_time(parse_time(text)), inclusive is not False, timeline)


def lsn_target(text: str, *, inclusive: bool | None, timeline: int) -> Target:
    """By a position in the WAL."""
    if not _LSN.fullmatch(text):
        raise _bad(f"target_lsn: {text!r} is no LSN.", "Write it as 16/B374D848.")
    return Target("lsn", format_lsn(parse_lsn(text)), inclusive is not False, timeline)


def xid_target(text: str, *, inclusive: bool | None, timeline: int) -> Target:
    """By a transaction; it itself is left out where nothing else is said, for it is the one that did the harm."""
    if not _XID.fullmatch(text):
        raise _bad(f"target_xid: {text!r} is no transaction id.", "Give the number that the candidates show.")
    return Target("xid", str(int(text) & 0xFFFFFFFF), inclusive is True, timeline)


def name_target(text: str, *, timeline: int) -> Target:
    """By a restore point that pg_create_restore_point made."""
    if not _NAME.fullmatch(text):
        raise _bad(f"target_name: {text!r} can't be a restore point's name.", "It has 1 to 63 characters.")
    return Target("name", text, True, timeline)


def parse_target(given: t.Mapping[str, t.Any], *, inclusive: bool | None = None, timeline: int = 0) -> Target | None:
    """The one target among ``target_time``, ``target_lsn``, ``target_xid``, ``target_name``, ``target_immediate``."""
    known = ("target_time", "target_lsn", "target_xid", "target_name", "target_immediate")
    named = [name for name in known if given.get(name)]
    if len(named) > 1:
        raise _bad(f"{' and '.join(named)} are given; one target is meant.", "Give one of them.")
    if not named:
        return None
    text = str(given[named[0]])
    if named[0] == "target_time":
        return time_target(text, inclusive=inclusive, timeline=timeline)
    if named[0] == "target_lsn":
        return lsn_target(text, inclusive=inclusive, timeline=timeline)
    if named[0] == "target_xid":
        return xid_target(text, inclusive=inclusive, timeline=timeline)
    if named[0] == "target_name":
        return name_target(text, timeline=timeline)
    return Target("immediate", "", True, timeline)


def lies_ahead(target: Target, position: Position, reached: Target, located: Located | None) -> bool:
    """Whether recovery that stands at `position` can go on to `target`: it can't go back."""
    if target.timeline != reached.timeline or target.kind == "immediate":
        return False
    if target.kind == "lsn":
        return parse_lsn(target.value) > position.lsn
    if target.kind == "time":
        wanted = moment_of(target)
        if reached.kind == "time":
            return wanted > moment_of(reached)
        return bool(position.last_commit) and wanted > parse_iso(position.last_commit)
    return located is not None and located.lsn >= position.lsn
