# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A new copy in the place of a data directory that cannot be rewound; what a rejoin borrows from here. PRIVATE."""

from __future__ import annotations

import dataclasses
import typing as t

from .._clock import Clock
from .._cluster.member_config import DatabaseHost
from .._command import CommandRunner
from .._postgres import Session, connect
from . import standby_plan
from .standby_apply import StandbyApplier
from .standby_inspect import inspect_local, inspect_upstream, upstream_params
from .standby_model import StandbyWish

TIMEOUT = 6 * 3600.0


class Recloned(t.NamedTuple):
    """What came of it."""

    detail: str
    kept_directory: str
    """Where the old data directory is kept; empty where there was none."""


def reclone(
    host: DatabaseHost,
    upstream: str,
    *,
    runner: CommandRunner,
    clock: Clock,
    connector: t.Callable[..., Session] = connect,
) -> Recloned:
    """Copy `upstream` beside the stopped instance's data directory and put the copy in its place; the old one is kept.

    The caller has settled that this data is to be replaced, so neither the fence nor standby.signal counts here.
    """
    peer = host.peer(upstream)
    wish = StandbyWish(
        member=host.name,
        upstream=peer.name,
        version=host.instance.version,
        data_directory=host.instance.data_directory,
        slot=host.slot_name,
        conninfo=host.primary_conninfo(peer),
        allow_reclone=True,
    )
    local = inspect_local(host, runner=runner)
    local = dataclasses.replace(local, member=dataclasses.replace(local.member, fence=None, standby_signal=False))
    session = connector(upstream_params(host, peer.name))
    try:
        plan = standby_plan.plan(wish, local, inspect_upstream(peer.name, session, with_size=True))
        applier = StandbyApplier(
            host,
            wish,
            upstream=session,
            connect_local=lambda: connector(host.instance.local(), os_user=host.instance.os_user),
            runner=runner,
            clock=clock,
            clone_timeout=TIMEOUT,
        )
        applier.apply(plan, local)
    finally:
        session.close()
    return Recloned("; ".join(plan.lines()), applier.kept_directory)
