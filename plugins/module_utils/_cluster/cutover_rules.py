# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What forbids a cutover to a recovered side cluster. Pure. PRIVATE.

Every rule has a name; where it is overridable, naming it in ``force`` overrides this one and no other.
"""

from __future__ import annotations

import typing as t

from . import rules
from .cutover_model import CutoverRequest, SideSight
from .model import ClusterFacts, MemberFacts
from .plan import Refusal as Rule
from .plan import Request, leader

RECOVER = "playbooks/pitr.yml with the target that is meant"


def all_of(facts: ClusterFacts, sights: t.Sequence[SideSight], request: CutoverRequest) -> list[Rule]:
    """Everything that forbids it, the gravest first."""
    asked = Request("switchover", confirm=request.confirm, hold_seconds=request.hold_seconds)
    found = [] if request.check_only else rules.consent(facts, asked)
    primary = leader(facts)
    if primary is None:
        return [*rules.one_primary(facts), *found]
    sight = next((one for one in sights if one.host == primary.name), None)
    found += _there(primary, sight, sights)
    if sight is not None and sight.state == "ours":
        found += _identity(facts, primary, sight)
        found += _at_target(sight)
        found += _place(sight)
        found += _lost(sight)
    found += _quiet(primary, asked)
    found += _standbys(facts, primary)
    found += rules.poolers(facts, planned=True)
    return found


def _there(primary: MemberFacts, sight: SideSight | None, sights: t.Sequence[SideSight]) -> t.Iterator[Rule]:
    if sight is None:
        text = f"What is beside the data directory of {primary.name} could not be looked at."
        yield Rule("no_side", text, "See why its agent doesn't answer.", False)
        return
    if sight.state == "foreign":
        text = f"{sight.directory} on {primary.name} is no side cluster of ours: it has no marker file."
        yield Rule("foreign_directory", text, "Name the directory that pitr.yml recovered into.", False)
    if sight.state != "absent":
        return
    others = [one.host for one in sights if one.state == "ours"]
    text = f"There is no side cluster at {sight.directory} on {primary.name}."
    step = f"Recover one first: {RECOVER}."
    if others:
        text += f" There is one on {', '.join(others)}, which doesn't lead."
        step = f"Recover one on the primary: {RECOVER}, without host=…; or switch over to {others[0]} first."
    yield Rule("no_side", text, step, False)


def _identity(facts: ClusterFacts, primary: MemberFacts, sight: SideSight) -> t.Iterator[Rule]:
    """Whether it is this cluster, and what its marker says it is."""
    live = primary.control.system_identifier if primary.control else ""
    if sight.cluster != facts.cluster or sight.marker_system != live:
        text = f"{sight.directory} holds the cluster {sight.cluster} ({sight.marker_system}), and {live} lives here."
        yield Rule(
            "other_system", text, "Name the right directory, or remove it: playbooks/pitr.yml -e state=absent.", False
        )
    elif sight.system_identifier != live:
        text = (
            f"The data in {sight.directory} is of the system {sight.system_identifier or 'unknown'}; its marker says "
            f"{sight.marker_system}."
        )
        yield Rule("side_differs", text, f"Something changed it. Recover it anew: {RECOVER}.", False)
    major = primary.version_number // 10000
    if sight.version != major:
        text = f"The side cluster is of PostgreSQL {sight.version}, the live one of {major}."
        yield Rule("version_differs", text, "A cutover does not change the version.", False)


def _at_target(sight: SideSight) -> t.Iterator[Rule]:
    again = "Run playbooks/pitr.yml with the same target: it goes on from there."
    if sight.ready:
        return
    if sight.stage != "recovered":
        text = f"The recovery in {sight.directory} did not come to its end."
        yield Rule("side_unfinished", text, again, False)
    elif sight.open:
        text = f"Somebody promoted the side cluster in {sight.directory}: it is not at {sight.target} any more."
        yield Rule("side_promoted", text, f"Recover it anew: {RECOVER}.", False)
    elif not sight.running or not sight.paused:
        text = f"The side cluster in {sight.directory} is {'not paused at its target' if sight.running else 'down'}."
        yield Rule("side_not_paused", text, again, False)
    elif sight.lsn != sight.reached_lsn:
        text = f"The side cluster has replayed on beyond the position that it was left at, {sight.target}."
        yield Rule("side_differs", text, f"Look at it again; recover it anew: {RECOVER}.", False)


def _place(sight: SideSight) -> t.Iterator[Rule]:
    """Whether the one data directory can take the other's place by a rename."""
    if not sight.same_filesystem:
        text = (
            f"{sight.directory} and {sight.live} are on different filesystems: no rename leads from one to the other."
        )
        step = "Recover it into a directory on the filesystem of the live one: playbooks/pitr.yml -e directory=…."
        yield Rule("other_filesystem", text, step, False)
    if sight.mount_point:
        text = f"{sight.live} is a mount point: it can't be renamed."
        step = "Keep the data directory in a folder below the mount point; until then take tables back (tables=…)."
        yield Rule("mount_point", text, step, False)
    if sight.tablespaces:
        text = f"There are tablespaces ({', '.join(sight.tablespaces)}): their folders would stay where they are."
        step = "Move what is in them to pg_default, or take tables back: playbooks/pitr.yml -e tables=…."
        yield Rule("tablespaces", text, step, False)
    if sight.kept_exists:
        text = f"The name under which {sight.live} would be kept is taken."
        yield Rule("kept_exists", text, "Run it again in a second.", False)
    if sight.wal_link:
        text = f"pg_wal of {sight.live} is a link to {sight.wal_link}; afterwards it is a folder of the data directory."
        yield Rule("wal_elsewhere", text, "See that the disk has room and speed for it, then override.")


def _lost(sight: SideSight) -> t.Iterator[Rule]:
    if sight.logical_slots:
        text = f"Logical slots ({', '.join(sight.logical_slots)}) do not exist at the target: their readers lose them."
        yield Rule("logical_slots", text, "Make them, and their readers' copies, again afterwards; then override.")
    if sight.support is False:
        text = f"At {sight.target} the database lacks the schema hms: no bouncer could log in."
        yield Rule("no_support", text, "Choose a target after the site was set up, or take tables back.", False)


def _quiet(primary: MemberFacts, asked: Request) -> t.Iterator[Rule]:
    for rule in rules.quiet(primary, asked):
        if rule.rule != "archive_behind":
            yield rule
    if primary.ready_segments > rules.ARCHIVED_SOON:
        text = (
            f"{primary.ready_segments} WAL segments of {primary.name} wait to be archived. What is not in the archive "
            "would be in the data directory that is put aside only."
        )
        yield Rule("archive_behind", text, "Bring the archive back and wait; or override, and keep that directory.")


def _standbys(facts: ClusterFacts, primary: MemberFacts) -> t.Iterator[Rule]:
    for member in facts.members:
        if not member.reachable:
            text = f"{member.name} can't be reached: {member.error} It would stay on the history that is left."
            yield Rule("standby_unreachable", text, "Bring it back; or override, and rejoin it before anybody uses it.")
    if facts.sync_policy == "strict" and len(facts.members) > 1:
        text = (
            f"Under the policy strict no write is acknowledged without a standby, and none can follow {primary.name} "
            "before it is rejoined: clients would wait until then."
        )
        step = "Override to let it lead without a synchronous standby until the rejoin; the report says so."
        yield Rule("no_sync_standby", text, step)
