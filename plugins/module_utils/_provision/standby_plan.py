# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What makes a host a standby of its upstream: a pure function of facts and wish. PRIVATE.

Data is never overwritten. What may only be replaced by an explicit word is refused without it,
and with it the old data directory is kept under a dated name.
"""

from __future__ import annotations

import typing as t

from .._errors import Refused, defect
from .standby_model import (
    DATA,
    FOREIGN,
    PGBACKREST,
    ArchiveFacts,
    Backup,
    LocalFacts,
    StandbyAction,
    StandbyPlan,
    StandbyWish,
    UpstreamFacts,
)

_UNTOUCHED = "Nothing was touched."
_LOST = "lost"
_PRIMARY_STATES = ("in production", "shut down", "shutting down", "in crash recovery")

RESERVE_SHARE = 0.10
RESERVE_LEAST = 256 * 1024 * 1024


def required_bytes(size: int) -> int:
    """Space that a copy of `size` bytes needs: WAL comes in while it is made, and afterwards."""
    return size + max(int(size * RESERVE_SHARE), RESERVE_LEAST)


def plan(
    wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts, archive: ArchiveFacts | None = None
) -> StandbyPlan:
    """The actions, or `Refused` with what to do. `archive` is what was found where one is configured and matters."""
    _check_identity(wish, local, upstream)
    obstacle = _obstacle(wish, local, upstream, archive)
    if local.content == DATA and obstacle is None:
        return StandbyPlan(tuple(_follow(wish, local, upstream)))
    if obstacle is not None and not wish.allow_reclone:
        raise obstacle
    backup, warnings = _backup(wish, archive)
    actions = []
    if obstacle is not None:
        actions += _set_aside(wish, local, obstacle, reuse=_reuses(wish, local, upstream, backup))
    actions += _clone(wish, local, upstream, backup)
    return StandbyPlan(tuple(actions), backup=backup, warnings=warnings)


def _backup(wish: StandbyWish, archive: ArchiveFacts | None) -> tuple[Backup | None, tuple[str, ...]]:
    """What the copy is made of, None for pg_basebackup; and what to warn about."""
    if wish.clone_method != PGBACKREST:
        return None, ()
    if archive is not None and archive.backup is not None:
        return archive.backup, archive.backup.notes
    problem = archive.refusal if archive is not None else None
    if problem is None:
        raise defect("what the repository holds")
    if not wish.clone_fallback:
        problem.next_step += " Or copy the upstream itself: clone_method basebackup."
        raise problem
    return None, (f"{wish.member} is copied by pg_basebackup, for pgBackRest can't: {problem.message}",)


def _refuse(message: str, reason: str, next_step: str, **details: t.Any) -> Refused:
    return Refused(message, reason=reason, phase="plan", state=_UNTOUCHED, next_step=next_step, details=details)


def _check_identity(wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts) -> None:
    """What no explicit word overrides."""
    if wish.upstream == wish.member:
        raise _refuse(f"{wish.member} cannot be a standby of itself.", "upstream_is_self", "Name another upstream.")
    fence = local.member.fence
    if fence:
        raise _refuse(
            f"{wish.member} is fenced since {fence.get('at', '?')} (operation {fence.get('operation', '?')}).",
            "fenced",
            f"Run playbooks/rejoin.yml -e host={wish.member}.",
        )
    if upstream.version != wish.version:
        raise _refuse(
            f"The upstream {upstream.name} runs PostgreSQL {upstream.version}, this host has {wish.version}: "
            "a standby must be of its primary's major version.",
            "version_differs",
            "Set postgresql_version to the same on all database hosts.",
        )
    if local.member.writable:
        raise _refuse(
            f"The instance on {wish.member} runs and takes writes; it cannot become a standby under its clients.",
            "runs_as_primary",
            f"If {upstream.name} is the primary, two are writable: stop this one, then run "
            f"playbooks/rejoin.yml -e host={wish.member}.",
        )
    if local.member.running and not local.member.responsive:
        raise _refuse(
            f"The instance on {wish.member} runs but does not answer ({local.member.error or 'no reason given'}).",
            "not_responsive",
            "Read its log in /var/log/postgresql; wait until it accepts connections, or stop it, and run again.",
        )
    if local.content == FOREIGN:
        raise _refuse(
            f"{wish.data_directory} is not empty and holds no PostgreSQL instance.",
            "not_a_data_directory",
            "Correct postgresql_data_dir, or move what is there out of the way.",
        )


def _obstacle(
    wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts, archive: ArchiveFacts | None
) -> Refused | None:
    """Why the data that is here cannot go on as a standby, if so."""
    if local.content != DATA:
        return None
    word = f"or allow a new copy by name: -e replication_allow_reclone={wish.member} (the old data directory is kept)."
    if local.version != wish.version:
        return _refuse(
            f"{wish.data_directory} holds an instance of PostgreSQL {local.version}, not of {wish.version}.",
            "data_of_other_version",
            "Upgrade it with pg_upgradecluster, " + word,
        )
    control = local.member.control
    if control is not None and control.system_identifier != upstream.system_identifier:
        return _refuse(
            f"{wish.data_directory} belongs to another cluster: its system identifier is "
            f"{control.system_identifier}, that of {upstream.name} is {upstream.system_identifier}.",
            "other_cluster",
            "Check the inventory, move the directory out of the way, " + word,
        )
    if not local.member.running and _ran_as_primary(local):
        return _refuse(
            f"The instance on {wish.member} was a primary when it last ran; what it wrote may be nowhere else.",
            "was_primary",
            f"Run playbooks/rejoin.yml -e host={wish.member}, which keeps what never replicated, " + word,
        )
    return _lost_wal(wish, local, upstream, archive, word)


def _ran_as_primary(local: LocalFacts) -> bool:
    """Whether a stopped instance took writes when it last ran. A fence leaves a standby.signal in such a one too."""
    if not local.member.standby_signal:
        return True
    control = local.member.control
    return not local.fresh_copy and control is not None and control.state in _PRIMARY_STATES


def _slot_is_lost(wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts) -> bool:
    slot = upstream.slots.get(wish.slot)
    receiver = local.member.receiver
    streaming = receiver is not None and receiver.status == "streaming"
    return slot is not None and slot.wal_status == _LOST and not streaming


def needs_archive(wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts) -> tuple[bool, bool]:
    """Whether the repository has to be looked at: for a copy, and for a standby that is to catch up from it."""
    copies = wish.clone_method == PGBACKREST and (local.content != DATA or wish.allow_reclone)
    return copies, bool(wish.restore_command) and local.content == DATA and _slot_is_lost(wish, local, upstream)


def _lost_wal(
    wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts, archive: ArchiveFacts | None, word: str
) -> Refused | None:
    if not _slot_is_lost(wish, local, upstream) or (archive is not None and not archive.gap):
        return None
    return _refuse(
        f"{upstream.name} no longer has the WAL that {wish.member} needs: the slot {wish.slot} was invalidated "
        "by max_slot_wal_keep_size." + (f" The archive can't help: {archive.gap}" if archive is not None else ""),
        "wal_lost",
        "Bring the WAL back from an archive, " + word,
    )


def _follow(wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts) -> list[StandbyAction]:
    """A standby is here: make it follow the right upstream through its own slot."""
    actions = []
    if wish.slot not in upstream.slots:
        actions.append(_create_slot(wish, "the upstream has no such slot"))
    elif _slot_is_lost(wish, local, upstream):
        actions.append(_drop_lost_slot(wish))
        # it would be lost again if it kept WAL from now on, and the archive has what the standby needs until it streams
        actions.append(
            StandbyAction(
                "create_idle_slot",
                f"create the slot {wish.slot} on {wish.upstream}, to keep WAL once it is used",
                "until then the standby catches up from the archive",
            )
        )
    if not local.member.standby_signal:
        actions.append(StandbyAction("signal", "write standby.signal", "after a restart it would be a primary"))
    if (local.primary_conninfo, local.primary_slot_name) != (wish.conninfo, wish.slot):
        actions.append(
            StandbyAction(
                "point",
                f"point it at {wish.upstream}, slot {wish.slot}",
                "primary_conninfo or primary_slot_name in postgresql.auto.conf differ",
            )
        )
    if wish.restore_command and local.restore_command not in (None, wish.restore_command):
        actions.append(
            StandbyAction(
                "fetch",
                "correct restore_command in postgresql.auto.conf",
                "it is not the one that this site sets: it may fetch WAL late, from another place, or not at all",
            )
        )
    return actions


def _drop_lost_slot(wish: StandbyWish) -> StandbyAction:
    return StandbyAction("drop_slot", f"drop the slot {wish.slot} on {wish.upstream}", "its WAL is lost")


def _create_slot(wish: StandbyWish, why: str) -> StandbyAction:
    return StandbyAction("create_slot", f"create the slot {wish.slot} on {wish.upstream}", why)


def _reuses(wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts, backup: Backup | None) -> bool:
    """Whether the copy uses up the data that is here: only of the same cluster, or there is nothing to save."""
    control = local.member.control
    same = control is not None and control.system_identifier == upstream.system_identifier
    return wish.reuse_data and backup is not None and same and local.version == wish.version and not local.resumable


def _set_aside(wish: StandbyWish, local: LocalFacts, obstacle: Refused, *, reuse: bool) -> list[StandbyAction]:
    actions = []
    if local.member.running:
        actions.append(StandbyAction("stop", f"stop the instance on {wish.member}", "its data is to be replaced"))
    why = f"{obstacle.message} A new copy is allowed"
    if reuse:
        what = f"rename {wish.data_directory} and use it up for the copy: what it holds is LOST"
        actions.append(StandbyAction("reuse", what, why))
    else:
        actions.append(StandbyAction("set_aside", f"rename {wish.data_directory} and keep it", why))
    return actions


def _clone(wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts, backup: Backup | None) -> list[StandbyAction]:
    slot = upstream.slots.get(wish.slot)
    _check_clone(wish, local, upstream, backup)
    actions = []
    for path in local.leftovers:
        resumed = backup is not None and path == local.resumable
        still = f"; end the copy that still runs (pid {', '.join(map(str, local.orphans))})" if local.orphans else ""
        actions.append(
            StandbyAction("resume", f"go on in {path}{still}", "it is a restore that has not ended")
            if resumed
            else StandbyAction("remove_leftover", f"remove {path}{still}", "it is a copy that was never finished")
        )
    if slot is None:
        actions.append(_create_slot(wish, "the copy must find all WAL after its start"))
    elif slot.wal_status == _LOST:
        actions.append(_drop_lost_slot(wish))
        actions.append(_create_slot(wish, "the copy must find all WAL after its start"))
    size = f"{upstream.size_bytes / 1e9:.2f} GB" if upstream.size_bytes is not None else "size not measured"
    by_basebackup = f"copy {wish.upstream} into {wish.data_directory} by pg_basebackup ({size})"
    by_restore = f"restore {backup.describe()} into {wish.data_directory}" if backup is not None else ""
    actions.append(
        StandbyAction(
            "clone",
            by_restore or by_basebackup,
            "there is no instance here" if local.content != DATA else "a new copy is allowed",
        )
    )
    return actions


def _check_room(wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts, backup: Backup | None) -> None:
    """Room for the copy. What a restore goes on with needs none again."""
    if upstream.size_bytes is None:
        return
    size = max(upstream.size_bytes, backup.bytes) if backup is not None else upstream.size_bytes
    goes_on = backup is not None and bool(local.resumable or _reuses(wish, local, upstream, backup))
    there = min(local.reusable_bytes, size) if goes_on else 0
    needed = required_bytes(size) - there
    if local.free_bytes < needed:
        raise _refuse(
            f"Not enough room on {wish.member} for {wish.data_directory}: {needed} bytes "
            f"are needed (the size of {wish.upstream} and a reserve for WAL), {local.free_bytes} are free.",
            "disk_full",
            "Make room, or put postgresql_data_dir on a larger file system.",
            required_bytes=needed,
            free_bytes=local.free_bytes,
        )


def _check_clone(wish: StandbyWish, local: LocalFacts, upstream: UpstreamFacts, backup: Backup | None) -> None:
    slot = upstream.slots.get(wish.slot)
    if local.mount_point:
        raise _refuse(
            f"{wish.data_directory} is a mount point: a finished copy cannot be renamed into its place.",
            "mount_point",
            "Use a folder inside that file system as postgresql_data_dir.",
        )
    if slot is not None and slot.active and not local.member.running and not local.orphans:
        raise _refuse(
            f"The slot {wish.slot} on {wish.upstream} is in use by somebody else.",
            "slot_in_use",
            "Is another host set up under the same name, or does an earlier copy still run? End it and run again.",
        )
    if upstream.tablespaces:
        raise _refuse(
            f"{wish.upstream} has {upstream.tablespaces} tablespaces of its own; "
            "copies with tablespaces are not made here.",
            "tablespaces",
            "Copy it with pg_basebackup --tablespace-mapping by hand; an existing standby is followed up as it is.",
        )
    _check_room(wish, local, upstream, backup)
