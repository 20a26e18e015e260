# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The exchange of two data directories on disk: its journal, where it is, forward and back. PRIVATE.

Two renames can't be one. So ``cutover.json`` says what is exchanged before the first of them, and where it is now is
read from the directories themselves: each is known by the timeline in its control file. The side cluster can be
taken out again as long as its control file is the one that it was shut down with: then it has never run there.
"""

from __future__ import annotations

import dataclasses
import os
import stat
import typing as t

from .._errors import HmsError
from .._files import dump_json, read_bytes, read_json, remove_file, sync_directory, write_atomic
from .._tools import auto_conf
from .._tools.pg_controldata import SHUT_DOWN, ControlData
from .._tools.service import processes_in
from .cutover_model import Exchange, Stage, exchange_from
from .settings import BULLETIN

JOURNAL = "cutover.json"
SCHEMA = 1

Place = t.Literal["old", "between", "new", "ran"]
"""At the live path lies the old cluster; nothing; the new one as it was shut down; the new one, and it has run."""

OWN_FILES = ("postgresql.conf", "pg_hba.conf", "pg_ident.conf")
"""Configuration that a data directory may hold; Debian keeps it elsewhere."""
SIGNALS = ("recovery.signal", "standby.signal")
RECOVERY = ("recovery_target",)

ReadControl = t.Callable[[str], ControlData]


def journal_path(state_directory: str) -> str:
    """Where the journal is."""
    return os.path.join(state_directory, JOURNAL)


def read_journal(state_directory: str) -> Exchange | None:
    """The exchange of this or the last cutover on this host."""
    try:
        return exchange_from(read_json(journal_path(state_directory)))
    except ValueError:
        return None


def in_the_middle(state_directory: str) -> bool:
    """Whether a cutover was begun here that is neither done nor taken back."""
    found = read_journal(state_directory)
    return found is not None and found.stage in ("exchanging", "starting")


def write_journal(state_directory: str, exchange: Exchange, stage: Stage) -> Exchange:
    """Write down how far it is; on disk before this returns."""
    now = dataclasses.replace(exchange, stage=stage)
    data = {"schema": SCHEMA, **dataclasses.asdict(now)}
    write_atomic(journal_path(state_directory), dump_json(data), mode=0o600)
    return now


def side_data(exchange: Exchange) -> str:
    """The data directory of the side cluster."""
    return os.path.join(exchange.side, "data")


def where(exchange: Exchange, read: ReadControl) -> Place:
    """What lies at the live path now."""
    if not os.path.exists(os.path.join(exchange.live, "global", "pg_control")):
        if not os.path.isdir(exchange.kept):
            raise HmsError(
                f"There is neither a data directory at {exchange.live} nor one at {exchange.kept}.",
                reason="data_missing",
                next_step="Find out who moved them; pg_controldata tells the timelines apart.",
            )
        return "between"
    control = read(exchange.live)
    if control.timeline < exchange.new_timeline:
        return "old"
    return "new" if untouched(exchange, control) else "ran"


def untouched(exchange: Exchange, control: ControlData) -> bool:
    """Whether this is the promoted side cluster as it was shut down."""
    return (control.state, control.timeline, control.checkpoint_lsn) == (
        SHUT_DOWN,
        exchange.new_timeline,
        exchange.checkpoint,
    )


def _require_quiet(*folders: str) -> None:
    for folder in folders:
        found = processes_in(folder)
        if found:
            raise HmsError(
                f"Processes work in {folder} still: {', '.join(map(str, found))}. It is not moved under them.",
                reason="not_stopped",
                next_step=f"See what they are: ps -fp {found[0]}.",
            )


def _move(source: str, target: str) -> None:
    if os.path.lexists(target):
        raise HmsError(
            f"{source} can't become {target}: that is there already.",
            reason="name_taken",
            next_step="See what it is; nothing is overwritten.",
        )
    os.rename(source, target)
    sync_directory(os.path.dirname(target))
    sync_directory(os.path.dirname(source))


def put_in(exchange: Exchange, read: ReadControl) -> None:
    """The live data directory is kept aside, the side cluster takes its place. Both are down."""
    place = where(exchange, read)
    if place in ("new", "ran"):
        return
    _require_quiet(exchange.live, exchange.kept, side_data(exchange))
    if place == "old":
        _move(exchange.live, exchange.kept)
    _move(side_data(exchange), exchange.live)


def put_back(exchange: Exchange, read: ReadControl) -> None:
    """Everything where it was. Not for a cluster that has run in its new place."""
    place = where(exchange, read)
    if place == "ran":
        raise HmsError(
            f"The recovered cluster runs in {exchange.live} already.",
            reason="committed",
            next_step="Run it again: it only goes forward.",
        )
    if place == "old":
        return
    _require_quiet(exchange.live, exchange.kept, side_data(exchange))
    if place == "new":
        _move(exchange.live, side_data(exchange))
    _move(exchange.kept, exchange.live)


def align(exchange: Exchange, owner: str) -> None:
    """Give the side cluster the settings of the live one in place of those that it was recovered with."""
    data = side_data(exchange)
    for name in OWN_FILES:
        content = read_bytes(os.path.join(exchange.live, name))
        path = os.path.join(data, name)
        if content is None:
            remove_file(path)
        else:
            mode = stat.S_IMODE(os.stat(os.path.join(exchange.live, name)).st_mode)
            write_atomic(path, content, mode=mode, owner=owner)
    found = {
        name: value
        for name, value in auto_conf.read(exchange.live).items()
        if name != BULLETIN and not name.startswith(RECOVERY)
    }
    if exchange.sync_names is not None:
        found["synchronous_standby_names"] = exchange.sync_names
    text = auto_conf.render(found).encode("utf-8", "surrogateescape")
    write_atomic(os.path.join(data, auto_conf.FILE_NAME), text, mode=0o600, owner=owner)
    half_written = [name for name in os.listdir(data) if name.startswith(".hms-")]
    for name in (*SIGNALS, *half_written):
        remove_file(os.path.join(data, name))
    os.chmod(data, stat.S_IMODE(os.stat(exchange.live).st_mode))


def mark_for_archive(data: str, timeline: int, current: str, owner: str) -> list[str]:
    """Have the archiver send what the new timeline wrote while nothing was archived: its history file, whole segments.

    The server leaves such marks as it goes, and none while archiving is off.
    """
    folder = os.path.join(data, "pg_wal")
    prefix = f"{timeline:08X}"
    wanted = [f"{prefix}.history"] if timeline > 1 else []
    wanted += sorted(
        name for name in os.listdir(folder) if _segment(name) and name.startswith(prefix) and name < current
    )
    marked = []
    for name in wanted:
        status = os.path.join(folder, "archive_status", name)
        if os.path.exists(os.path.join(folder, name)) and not _has_status(status):
            write_atomic(status + ".ready", b"", mode=0o600, owner=owner)
            marked.append(name)
    return marked


def _segment(name: str) -> bool:
    return len(name) == 24 and all(char in "0123456789ABCDEF" for char in name)


def _has_status(path: str) -> bool:
    return os.path.exists(path + ".ready") or os.path.exists(path + ".done")


def tablespaces(*folders: str) -> tuple[str, ...]:
    """The OIDs of tablespaces of data directories."""
    found: set[str] = set()
    for folder in folders:
        try:
            found |= set(os.listdir(os.path.join(folder, "pg_tblspc")))
        except FileNotFoundError:
            continue
    return tuple(sorted(found))


def same_filesystem(first: str, second: str) -> bool:
    """Whether a rename leads from one folder to the other's parent."""
    return os.stat(first).st_dev == os.stat(os.path.dirname(second)).st_dev == os.stat(second).st_dev


def is_mount_point(path: str) -> bool:
    """Whether a folder can't be renamed because something is mounted on it."""
    return os.path.ismount(path)
