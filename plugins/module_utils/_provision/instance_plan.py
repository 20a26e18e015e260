# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What has to be done to an instance: a pure function of wish and facts. PRIVATE to the collection."""

from __future__ import annotations

import re

from .._errors import Refused
from .instance_model import (
    InstanceAction,
    InstanceFacts,
    InstancePlan,
    InstanceWish,
    PendingSetting,
)

UNTOUCHED = "Nothing was touched."
_NAME = re.compile(r"^[A-Za-z0-9_.]+$")
_OLDEST = 13


def _refuse(message: str, *, reason: str, next_step: str, **details: object) -> Refused:
    return Refused(message, reason=reason, phase="plan", state=UNTOUCHED, next_step=next_step, details=details)


def check_wish(wish: InstanceWish) -> None:
    """Refuse what can never work, whatever the host looks like."""
    if not _NAME.match(wish.name):
        raise _refuse(
            f"{wish.name!r} cannot be an instance's name: only letters, digits, dot and underscore can be part of "
            "its systemd unit's name.",
            reason="bad_instance_name",
            next_step="Choose another name (variable postgresql_instance).",
        )
    if wish.version < _OLDEST:
        raise _refuse(
            f"PostgreSQL {wish.version} is too old: this collection works with {_OLDEST} and later.",
            reason="unsupported_version",
            next_step="Choose a version that your distribution supports (variable postgresql_version).",
        )
    if not 1024 <= wish.port <= 65535:
        raise _refuse(
            f"Port {wish.port} is out of range: PostgreSQL takes 1024 to 65535.",
            reason="bad_port",
            next_step="Choose another port (variable postgresql_port).",
        )
    for path in (wish.data_directory, wish.socket_directory):
        if not path.startswith("/") or path.rstrip("/") == "":
            raise _refuse(
                f"{path!r} is no absolute path of a folder.",
                reason="bad_path",
                next_step="Give an absolute path.",
            )


def _check_installed(wish: InstanceWish, facts: InstanceFacts) -> None:
    if not (facts.installed_version and facts.tools_present):
        raise _refuse(
            f"PostgreSQL {wish.version} is not installed on this host.",
            reason="not_installed",
            next_step=f"Install Debian's package postgresql-{wish.version}, or run the role hms.postgres.postgresql.",
        )


def _check_port(wish: InstanceWish, facts: InstanceFacts) -> None:
    for other in facts.others:
        if other.port == wish.port:
            raise _refuse(
                f"Port {wish.port} belongs to the instance {other.title} of this host "
                f"({'running' if other.running else 'stopped'}, data in {other.data_directory}).",
                reason="port_taken",
                next_step="Choose another port (variable postgresql_port), or remove that instance if it is of no use.",
            )
    holder = facts.port_holder
    if holder is not None:
        who = f"{holder.program} (pid {holder.pid})" if holder.pid else "a process that cannot be seen from here"
        raise _refuse(
            f"Port {wish.port} is taken: {who} listens on it.",
            reason="port_taken",
            next_step="Choose another port (variable postgresql_port), or end that process.",
        )


def _check_data_directory_of_others(wish: InstanceWish, facts: InstanceFacts) -> None:
    for other in facts.others:
        if other.data_directory.rstrip("/") == wish.data_directory.rstrip("/"):
            raise _refuse(
                f"The data directory {wish.data_directory} belongs to the instance {other.title} of this host.",
                reason="data_directory_taken",
                next_step="Choose another data directory, or use that instance's name.",
            )


def _check_cluster(wish: InstanceWish, facts: InstanceFacts) -> None:
    """The data directory holds a cluster: is it one that this instance can run on?"""
    data = facts.data
    if data.version != wish.version:
        raise _refuse(
            f"{wish.data_directory} holds a cluster of PostgreSQL {data.version}, wanted is {wish.version}.",
            reason="wrong_data_version",
            next_step="Set postgresql_version to what the data is, or upgrade the data with pg_upgradecluster.",
        )
    if data.owner != wish.os_user:
        raise _refuse(
            f"{wish.data_directory} belongs to the user {data.owner}, not to {wish.os_user}.",
            reason="wrong_owner",
            next_step="This data may be somebody else's. If it is ours, correct its owner and run again.",
        )


_UNFIT = {
    "not_a_directory": ("{path} is not a directory.", "Choose another data directory, or move that file away."),
    "foreign": (
        "The data directory {path} isn't empty and isn't a PostgreSQL cluster (it holds {sample}).",
        "Choose another data directory or move its content away (where lost+found is, take a directory below it).",
    ),
    "incomplete": (
        "The data directory {path} holds a part of a cluster only (PG_VERSION, but no global/pg_control).",
        "A clone or an initdb was interrupted there. Move the directory away and run again.",
    ),
}


def _check_fit(wish: InstanceWish, facts: InstanceFacts) -> None:
    unfit = _UNFIT.get(facts.data.kind)
    if unfit:
        message, next_step = unfit
        sample = ", ".join(facts.data.sample)
        raise _refuse(
            message.format(path=wish.data_directory, sample=sample),
            reason="data_directory_not_ours",
            next_step=next_step,
        )
    if facts.data.kind == "cluster":
        _check_cluster(wish, facts)


def _interrupted(wish: InstanceWish, facts: InstanceFacts) -> bool:
    """Whether a creation of ours was cut short, in a directory in which no server ever ran."""
    return (
        facts.creation_interrupted
        and wish.initialise
        and facts.postmaster is None
        and not facts.data.started_before
        and not facts.data.standby
        and facts.data.kind in ("missing", "empty", "incomplete", "cluster")
    )


def _create(wish: InstanceWish) -> InstanceAction:
    checksums = "with data checksums" if wish.checksums else "without data checksums"
    return InstanceAction(
        "create",
        f"create the instance {wish.title} in {wish.data_directory}, port {wish.port}, {wish.encoding}, "
        f"locale {wish.locale}, {checksums}",
        "there is no such instance, and its data directory is free",
    )


def _adopt(wish: InstanceWish, why: str) -> InstanceAction:
    return InstanceAction(
        "adopt", f"make Debian's configuration for the data in {wish.data_directory} as instance {wish.title}", why
    )


def _plan_new(wish: InstanceWish, facts: InstanceFacts, *, dry_run: bool) -> InstanceAction:
    """There is no configuration for this instance: create it, or adopt the data that lies there."""
    _check_data_directory_of_others(wish, facts)
    _check_fit(wish, facts)
    if facts.data.kind == "cluster":
        if facts.postmaster is not None:
            raise _refuse(
                f"A server (pid {facts.postmaster.pid}) runs on {wish.data_directory}, started without Debian's tools.",
                reason="foreign_server",
                next_step="Stop it with its own tools, then run again: the data will be taken over as it is.",
            )
        return _adopt(wish, "the data directory holds a cluster that Debian's tools don't know")
    if wish.initialise:
        return _create(wish)
    if dry_run:
        return _adopt(wish, "the data will have been cloned by then")
    raise _refuse(
        f"There is no data in {wish.data_directory}, and creating a new cluster is not wanted here.",
        reason="no_data",
        next_step="Clone the primary first (module hms.postgres.pg_standby), or set initialise to true on the primary.",
    )


def _plan_configured(wish: InstanceWish, facts: InstanceFacts) -> list[InstanceAction]:
    """The configuration is there: is it this instance's, with its data?"""
    if facts.configured_data_directory.rstrip("/") == wish.scaffold_directory:
        _check_fit(wish, facts)
        return [
            InstanceAction(
                "finish_adoption",
                f"point the configuration of {wish.title} at {wish.data_directory}",
                "an earlier run was interrupted while it took the data over",
            )
        ]
    if facts.configured_data_directory.rstrip("/") != wish.data_directory.rstrip("/"):
        raise _refuse(
            f"The instance {wish.title} exists and has its data in {facts.configured_data_directory}, "
            f"wanted is {wish.data_directory}.",
            reason="other_data_directory",
            next_step="Correct the variable postgresql_data_dir, choose another name, or move the data by hand.",
        )
    if facts.data.kind in ("missing", "empty"):
        raise _refuse(
            f"The instance {wish.title} is configured, but its data directory {wish.data_directory} is "
            f"{facts.data.kind}.",
            reason="data_missing",
            next_step="Is a file system not mounted? If the data is lost on purpose: as a standby, clone it again; "
            f"otherwise remove the instance with pg_dropcluster {wish.version} {wish.name} and run again.",
        )
    _check_fit(wish, facts)
    if facts.configured_port != wish.port:
        return [
            InstanceAction(
                "set_port",
                f"change the port of {wish.title} from {facts.configured_port} to {wish.port} (counts after a restart)",
                "the inventory names another port",
            )
        ]
    return []


def _notices(wish: InstanceWish, facts: InstanceFacts) -> list[str]:
    """What an operator should know about an instance that is there."""
    notices = []
    if facts.postmaster is not None and facts.binary_replaced:
        running = facts.running.server_version if facts.running else "unknown"
        installed = facts.installed_version or "another one"
        notices.append(
            f"The server of {wish.title} (pid {facts.postmaster.pid}) still runs version {running}, but its program on "
            f"disk was replaced by {installed}. New sessions may fail to load libraries. "
            "Restart it in a quiet moment: standbys first, then a planned switchover, then the old primary. "
            "It was not restarted."
        )
    if facts.data.checksums is False and wish.checksums:
        notices.append(
            f"The cluster in {wish.data_directory} has no data checksums: silent corruption would go unnoticed. "
            "Stop the instance and run pg_checksums --enable, one host after the other."
        )
    running_facts = facts.running
    if running_facts and (running_facts.encoding, running_facts.locale) != (wish.encoding, wish.locale):
        notices.append(
            f"The cluster {wish.title} was created with {running_facts.encoding} and locale {running_facts.locale}, "
            f"wanted is {wish.encoding} and {wish.locale}. This cannot be changed without a dump and restore."
        )
    return notices


def _check_start(wish: InstanceWish, facts: InstanceFacts) -> None:
    if facts.start_conf == "disabled":
        raise _refuse(
            f"The instance {wish.title} is disabled (start.conf says so): it was fenced after a failover or switched "
            "off by hand.",
            reason="instance_disabled",
            next_step="If it was the primary once, bring it back with playbooks/rejoin.yml. Otherwise set start.conf "
            "to auto.",
        )


def _config_errors(wish: InstanceWish, facts: InstanceFacts) -> None:
    errors = facts.running.errors if facts.running else ()
    if errors:
        listed = "; ".join(f"{error.file}:{error.line}: {error.message}" for error in errors)
        raise Refused(
            f"The configuration of {wish.title} has errors: {listed}.",
            reason="config_invalid",
            phase="plan",
            state="The server runs on with the configuration that it has.",
            next_step="Correct these lines (postgresql_settings, postgresql_hba) and run again.",
            details={"errors": [vars(error) for error in errors]},
        )


def _plan_running(wish: InstanceWish, facts: InstanceFacts) -> list[InstanceAction]:
    """The server runs: reload what changed, restart only where that is allowed."""
    if facts.running is None:
        raise _refuse(
            f"The server of {wish.title} runs but cannot be asked: {facts.unreachable}",
            reason="unreachable",
            next_step="Look into its log: it may be in recovery or out of connections.",
        )
    _config_errors(wish, facts)
    stale = facts.config_changed_at > facts.running.config_loaded_at
    if facts.running.pending and wish.restart == "allowed":
        names = ", ".join(setting.name for setting in facts.running.pending)
        why = f"these settings need it and it is allowed: {names}"
        return [InstanceAction("restart", f"restart {wish.title}", why)]
    if stale:
        return [
            InstanceAction(
                "reload",
                f"make {wish.title} read its configuration again",
                f"{facts.config_changed_file} is newer than what the server has loaded",
            )
        ]
    return []


def plan_instance(wish: InstanceWish, facts: InstanceFacts, *, dry_run: bool = False) -> InstancePlan:
    """The actions that bring the instance to what is wished; raises `Refused` where that isn't safe.

    In a `dry_run`, packages that are not installed yet and data that is not cloned yet are taken as coming.
    """
    check_wish(wish)
    if not dry_run:
        _check_installed(wish, facts)
    actions: list[InstanceAction] = []
    if _interrupted(wish, facts):
        actions.append(
            InstanceAction(
                "clear_interrupted_creation",
                f"remove what an interrupted creation left in {wish.data_directory}",
                "an earlier run was ended while it created the instance; no server ever ran on it",
            )
        )
        actions.append(_create(wish))
    elif facts.configured:
        actions += _plan_configured(wish, facts)
    else:
        actions.append(_plan_new(wish, facts, dry_run=dry_run))
    _check_port(wish, facts)
    warnings = _notices(wish, facts)
    if wish.state == "started":
        actions += _plan_started(wish, facts, port_changes=any(action.id == "set_port" for action in actions))
    pending = _pending(facts, actions)
    if pending:
        names = ", ".join(setting.name for setting in pending)
        warnings.append(
            f"{wish.title} waits for a restart to use new values of: {names}. It was not restarted. "
            "Do it in a quiet moment, or allow it with postgresql_restart=allowed."
        )
    return InstancePlan(actions=tuple(actions), warnings=tuple(warnings), pending_restart=pending)


def _plan_started(wish: InstanceWish, facts: InstanceFacts, *, port_changes: bool) -> list[InstanceAction]:
    if facts.postmaster is None:
        _check_start(wish, facts)
        return [InstanceAction("start", f"start {wish.title}", "it is wanted running and is down")]
    planned = _plan_running(wish, facts)
    if port_changes and wish.restart == "allowed" and not any(action.id == "restart" for action in planned):
        return [InstanceAction("restart", f"restart {wish.title}", "a new port needs it and it is allowed")]
    return planned


def _pending(facts: InstanceFacts, actions: list[InstanceAction]) -> tuple[PendingSetting, ...]:
    """What waits for a restart and goes on waiting after these actions."""
    if facts.running is None or any(action.id in ("restart", "start") for action in actions):
        return ()
    return facts.running.pending
