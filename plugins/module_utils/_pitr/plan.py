# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What to do about the side cluster: a pure function of what is there and what is wished. PRIVATE."""

from __future__ import annotations

import typing as t

from .._errors import Refused
from .model import Action, Located, Marker, Order, Side, Target
from .target import lies_ahead


def refused(message: str, reason: str, next_step: str) -> Refused:
    """What forbids it."""
    return Refused(message, reason=reason, phase="plan", state="Nothing was touched.", next_step=next_step)


def check_confirm(order: Order, *, check_mode: bool) -> None:
    """In production the cluster's name must be given."""
    if check_mode or order.confirm == order.cluster:
        return
    if order.confirm:
        raise refused(
            f"confirm is {order.confirm!r}, but this cluster is {order.cluster!r}.",
            "wrong_confirm",
            f"Give -e confirm={order.cluster} if it is the one you mean.",
        )
    if order.environment == "production":
        raise refused(
            "This is production: the cluster's name must be given as confirm.",
            "no_confirm",
            f"Give -e confirm={order.cluster}.",
        )


def check_ours(side: Side, order: Order, system_identifier: str) -> None:
    """Refuse a directory that isn't ours, or is another cluster's."""
    if side.state == "foreign":
        raise refused(
            f"{side.directory} is not empty and isn't a side cluster of ours: it has no marker file.",
            "foreign_directory",
            "Name another directory; this one is left as it is.",
        )
    marker = side.marker
    if marker is None:
        return
    if marker.cluster != order.cluster or (system_identifier and marker.system_identifier != system_identifier):
        raise refused(
            f"{side.directory} holds a side cluster of {marker.cluster} ({marker.system_identifier}), not of this one.",
            "foreign_directory",
            "Name another directory, or remove that side cluster first.",
        )


def plan(
    target: Target, label: str, side: Side, *, port: int, located: Located | None, wanted: str = ""
) -> list[Action]:
    """Nothing where it stands at the target already; else the shortest way there.

    `label` is the backup that a restore would start from, `wanted` the one that was asked for by name.
    """
    if side.state in ("absent", "empty") or side.marker is None:
        return [Action("restore", f"there is no side cluster at {side.directory}")]
    marker = side.marker
    if wanted not in ("", marker.label):
        return [Action("restore", f"it was restored from {marker.label}, not from {wanted}")]
    if marker.port != port:
        return [Action("restore", f"it listens on port {marker.port}, not {port}")]
    if marker.stage == "restoring":
        return [Action("restore", "an earlier restore did not come to its end")]
    if marker.stage == "promoted":
        return [Action("restore", "it was promoted for a cutover that did not take place")]
    if marker.target == target:
        return _same_target(marker, side)
    if side.position is None or marker.stage != "recovered":
        return [Action("restore", f"the side cluster is not at its target {marker.target.describe()}")]
    if lies_ahead(target, side.position, marker.target, located):
        return [Action("advance", f"{target.describe()} is ahead of {marker.target.describe()}: recovery goes on")]
    return [
        Action(
            "restore",
            f"{target.describe()} is not ahead of {marker.target.describe()}, and recovery can't go back; "
            f"what differs from {label} is restored",
        )
    ]


def _same_target(marker: Marker, side: Side) -> list[Action]:
    if not side.running:
        return [Action("start", "the side cluster is down")]
    if marker.stage == "recovered" and side.position is not None and side.position.paused:
        return []
    return [Action("wait", "the side cluster recovers")]


def will_change(actions: t.Sequence[Action]) -> bool:
    """Whether anything is done."""
    return bool(actions)
