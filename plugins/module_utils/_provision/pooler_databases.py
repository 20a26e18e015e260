# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Where the bouncers lead: the databases file and what each process has of it. PRIVATE.

The file follows the cluster's truth. Before clients are led to another member than before, that member itself
is asked whether it takes writes.
"""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._cluster.databases_file import PATH_PREFIX, head, path_entry, render
from .._cluster.facts import peer_role
from .._cluster.member_config import BouncerHost
from .._errors import HmsError, Refused
from .._files import read_bytes, same_file, write_atomic
from .._module import Result
from .._postgres import ConnectionParams
from .._tools.pgbouncer_console import PgbouncerConsole
from .pooler_processes import load_bouncer

OPERATION = "site"
FILE_MODE = 0o600
_UNTOUCHED = "Nothing was touched."

Target = tuple[str, int, str]
"""Host, port and database name that an entry leads to."""

AskPeer = t.Callable[[ConnectionParams], t.Optional[tuple[bool, int, str]]]
"""Like `facts.peer_role`."""


@dataclasses.dataclass(frozen=True)
class Loaded:
    """What one running process has loaded."""

    name: str
    targets: t.Mapping[str, Target]
    held: bool


@dataclasses.dataclass(frozen=True)
class DatabasesPlan:
    """Whether to write the file, which processes to reload, and whether the target must be asked first."""

    content: str
    write: bool
    reload: tuple[str, ...]
    ask_target: bool

    def lines(self, primary: str) -> list[str]:
        """For people."""
        lines = [f"write the databases file for {primary}"] if self.write else []
        return lines + [f"reload process {name}" for name in self.reload]


def wanted_targets(host: BouncerHost, primary: str) -> dict[str, Target]:
    """Where each entry of the file is to lead."""
    peer = host.peer(primary)
    targets: dict[str, Target] = {
        str(database["name"]): (peer.address, peer.port, str(database["dbname"])) for database in host.databases
    }
    first = str(host.databases[0]["dbname"])
    for member in host.members:
        targets[path_entry(member.name)] = (member.address, member.port, first)
    return targets


def plan(
    host: BouncerHost, *, primary: str, current: str, file_right: t.Callable[[str], bool], loaded: t.Sequence[Loaded]
) -> DatabasesPlan:
    """What is to be done so that the file and every process lead to `primary`; pure but for `file_right`."""
    heading = head(current) or {}
    same = heading.get("primary") == primary and heading.get("cluster") == host.cluster
    content = render(
        cluster=host.cluster,
        operation=heading["operation"] if same else OPERATION,
        primary=primary,
        databases=host.databases,
        members=[peer.as_member() for peer in host.members],
    )
    write = not file_right(content)
    wanted = wanted_targets(host, primary)
    names = set(wanted)
    behind = [process for process in loaded if _ours(process.targets, names) != wanted]
    to_reload = tuple(process.name for process in (loaded if write and content != current else behind))
    made = DatabasesPlan(content=content, write=write, reload=to_reload, ask_target=bool(not same or behind))
    held = [process.name for process in loaded if process.held]
    if held and made.lines(primary):
        raise Refused(
            f"The clients of PgBouncer process {', '.join(held)} are held: "
            "a switchover or failover is under way, or one was broken off.",
            reason="pool_held",
            state=_UNTOUCHED,
            next_step="Look at playbooks/status.yml; run again when the operation has ended.",
        )
    return made


def _ours(targets: t.Mapping[str, Target], names: t.Collection[str]) -> dict[str, Target]:
    """The entries that are ours: those wanted, and old paths to members that are gone."""
    return {name: target for name, target in targets.items() if name in names or name.startswith(PATH_PREFIX)}


class PoolerDatabases:
    """The databases file of one bouncer host."""

    def __init__(self, config_directory: str, *, ask_peer: AskPeer = peer_role) -> None:
        self._config_directory = config_directory
        self._ask_peer = ask_peer

    def ensure(self, *, primary: str, check_mode: bool) -> Result:
        """Lead every process to `primary`; in check mode only say how."""
        host = load_bouncer(self._config_directory, check_mode=check_mode)
        if host is None:
            lines = [f"write the databases file for {primary} (this host is not set up yet)"]
            return Result(True, {"plan": lines, "primary": primary}, before="", after="\n".join(lines))
        host.peer(primary)
        current = (read_bytes(host.databases_file) or b"").decode("utf-8", "replace")
        made = plan(
            host,
            primary=primary,
            current=current,
            file_right=lambda content: _file_right(host, content, check_mode=check_mode),
            loaded=self._loaded(host),
        )
        if made.ask_target and not check_mode:
            self._check_target(host, primary)
        if not check_mode:
            self._apply(host, made, primary)
        values = {
            "plan": made.lines(primary),
            "primary": primary,
            "previous_primary": (head(current) or {}).get("primary", ""),
            "reloaded": list(made.reload),
        }
        return Result(bool(values["plan"]), values, before=current, after=made.content)

    def _loaded(self, host: BouncerHost) -> list[Loaded]:
        """What the processes that answer have loaded; one that is down will read the file when it starts."""
        found = []
        for process in host.processes:
            try:
                console = PgbouncerConsole(host.console(process), os_user=host.os_user)
            except HmsError:
                continue
            try:
                rows = console.databases()
            finally:
                console.close()
            found.append(_from_rows(process.name, rows))
        return found

    def _check_target(self, host: BouncerHost, primary: str) -> None:
        """Ask the member itself before clients are led to it."""
        peer = host.peer(primary)
        answer = self._ask_peer(host.monitor.params(peer, dbname=host.database))
        if answer is None:
            raise Refused(
                f"{primary} does not let {host.monitor.user} in from {host.name}, so it cannot be shown that it takes "
                "writes.",
                reason="target_unreachable",
                state=_UNTOUCHED,
                next_step=f"Does {primary} run, is port {peer.port} open from here, does its pg_hba.conf name this "
                "host (postgresql_client_addresses), is the password right? See playbooks/status.yml.",
            )
        if answer[0]:
            raise Refused(
                f"{primary} is a standby; the bouncers lead clients to the primary only.",
                reason="target_is_standby",
                state=_UNTOUCHED,
                next_step="Run playbooks/site.yml, which asks every host who the primary is.",
            )

    def _apply(self, host: BouncerHost, made: DatabasesPlan, primary: str) -> None:
        if made.write:
            os.makedirs(os.path.dirname(host.databases_file), mode=0o755, exist_ok=True)
            write_atomic(host.databases_file, made.content, mode=FILE_MODE, owner=host.os_user)
        wanted = wanted_targets(host, primary)
        for process in host.processes:
            if process.name not in made.reload:
                continue
            console = PgbouncerConsole(host.console(process), os_user=host.os_user)
            try:
                console.reload()
                loaded = _from_rows(process.name, console.databases())
            finally:
                console.close()
            if _ours(loaded.targets, set(wanted)) != wanted:
                raise HmsError(
                    f"PgBouncer process {process.name} did not take the new databases file.",
                    reason="reload_not_taken",
                    state=f"The file leads to {primary}; this process still leads where it led before.",
                    next_step="Its log says why; then run again.",
                    details={"loaded": {name: list(target) for name, target in loaded.targets.items()}},
                )


def _file_right(host: BouncerHost, content: str, *, check_mode: bool) -> bool:
    """Whether the file has this content, and the mode and owner it should have."""
    if check_mode and read_bytes(host.databases_file) != content.encode():
        return False
    return same_file(host.databases_file, content.encode(), mode=FILE_MODE, owner=host.os_user)


def _from_rows(name: str, rows: t.Sequence[t.Mapping[str, t.Any]]) -> Loaded:
    targets: dict[str, Target] = {
        str(row["name"]): (str(row["host"]), int(row["port"]), str(row["database"]))
        for row in rows
        if row["name"] != "pgbouncer"
    }
    return Loaded(name=name, targets=targets, held=any(str(row["paused"]) == "1" for row in rows))
