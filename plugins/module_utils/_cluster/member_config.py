# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a host knows about its own part in the cluster: ``member.json``, written by the roles. PRIVATE."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._errors import HmsError
from .._files import read_json
from .._postgres import ConnectionParams, quote_conninfo
from .databases_file import Member

FILE_NAME = "member.json"


@dataclasses.dataclass(frozen=True)
class Peer:
    """A database host as every member knows it."""

    name: str
    address: str
    port: int
    priority: int = 100
    may_be_primary: bool = True

    def as_member(self) -> Member:
        """The same for the bouncers' databases file."""
        return Member(self.name, self.address, self.port)


@dataclasses.dataclass(frozen=True)
class Login:
    """A role used over the network; its password stays in the passfile."""

    user: str
    passfile: str
    sslmode: str = "verify-ca"
    sslrootcert: str | None = None

    def params(self, peer: Peer, *, dbname: str, timeout: int = 3) -> ConnectionParams:
        """Connection parameters for `peer`."""
        return ConnectionParams(
            host=peer.address,
            port=peer.port,
            user=self.user,
            dbname=dbname,
            passfile=self.passfile,
            sslmode=self.sslmode,
            sslrootcert=self.sslrootcert,
            connect_timeout=timeout,
        )


@dataclasses.dataclass(frozen=True)
class Instance:
    """The PostgreSQL instance on this host."""

    version: int
    instance: str
    port: int
    socket_directory: str
    data_directory: str
    config_directory: str
    bin_directory: str
    os_user: str = "postgres"

    def local(self, dbname: str = "postgres", *, statement_timeout: float = 30.0) -> ConnectionParams:
        """The local socket; peer authentication as the operating system's user."""
        return ConnectionParams(
            host=self.socket_directory,
            port=self.port,
            user=self.os_user,
            dbname=dbname,
            connect_timeout=3,
            statement_timeout=statement_timeout,
        )


@dataclasses.dataclass(frozen=True)
class PoolerProcess:
    """One PgBouncer process."""

    name: str
    socket_directory: str
    config_file: str
    pidfile: str


@dataclasses.dataclass(frozen=True)
class DatabaseHost:
    """``member.json`` of a database host."""

    name: str
    cluster: str
    environment: str
    address: str
    state_directory: str
    database: str
    sync_policy: str
    instance: Instance
    replication: Login
    slot_name: str
    monitor: Login
    members: tuple[Peer, ...]
    degrade_after_seconds: float = 10.0
    """How long commits wait for a standby that doesn't stream before the policy degrade lets them go on alone."""

    def peer(self, name: str) -> Peer:
        """A member by name."""
        return _peer(self.members, name)

    def primary_conninfo(self, upstream: Peer) -> str:
        """What ``primary_conninfo`` must be to stream from `upstream`."""
        pairs = {
            "host": upstream.address,
            "port": str(upstream.port),
            "user": self.replication.user,
            "passfile": self.replication.passfile,
            "sslmode": self.replication.sslmode,
            "sslrootcert": self.replication.sslrootcert or "",
            "application_name": self.name,
            "connect_timeout": "5",
        }
        return " ".join(f"{key}={quote_conninfo(value)}" for key, value in pairs.items() if value)


@dataclasses.dataclass(frozen=True)
class BouncerHost:
    """``member.json`` of a bouncer host."""

    name: str
    cluster: str
    environment: str
    address: str
    state_directory: str
    database: str
    os_user: str
    port: int
    databases_file: str
    databases: tuple[t.Mapping[str, t.Any], ...]
    processes: tuple[PoolerProcess, ...]
    monitor: Login
    members: tuple[Peer, ...]

    def peer(self, name: str) -> Peer:
        """A member by name."""
        return _peer(self.members, name)

    def through(self, process: PoolerProcess, *, dbname: str, statement_timeout: float = 5.0) -> ConnectionParams:
        """A client's way through one process: its own socket, so that none of its siblings answers instead."""
        return ConnectionParams(
            host=process.socket_directory,
            port=self.port,
            user=self.monitor.user,
            dbname=dbname,
            passfile=self.monitor.passfile,
            connect_timeout=5,
            statement_timeout=statement_timeout,
            startup_options=False,
        )

    def console(self, process: PoolerProcess) -> ConnectionParams:
        """The admin console of one process; its socket accepts the process's own operating system user."""
        return ConnectionParams(
            host=process.socket_directory,
            port=self.port,
            user="pgbouncer",
            dbname="pgbouncer",
            connect_timeout=3,
            startup_options=False,
        )


def _peer(members: t.Sequence[Peer], name: str) -> Peer:
    for member in members:
        if member.name == name:
            return member
    known = ", ".join(member.name for member in members)
    raise HmsError(
        f"{name!r} is not a member of the cluster; its members are {known}.",
        reason="unknown_member",
        next_step="Name one of these hosts, or add the new one to the inventory and run playbooks/site.yml.",
    )


def _peers(data: t.Mapping[str, t.Any]) -> tuple[Peer, ...]:
    peers = tuple(Peer(**member) for member in data["members"])
    slots = [slot_name(peer.name) for peer in peers]
    twice = sorted({slot for slot in slots if slots.count(slot) > 1})
    if twice:
        raise HmsError(
            f"Two members would use one slot: {', '.join(twice)}.",
            reason="bad_member_config",
            next_step="Give them names that differ in more than punctuation and case.",
        )
    return peers


def _database_host(data: t.Mapping[str, t.Any]) -> DatabaseHost:
    replication = dict(data["replication"])
    slot_name = replication.pop("slot_name")
    return DatabaseHost(
        name=data["name"],
        cluster=data["cluster"],
        environment=data["environment"],
        address=data["address"],
        state_directory=data["state_directory"],
        database=data["database"],
        sync_policy=data["sync_policy"],
        instance=Instance(**data["postgresql"]),
        replication=Login(**replication),
        slot_name=slot_name,
        monitor=Login(**data["monitor"]),
        members=_peers(data),
        degrade_after_seconds=float(data.get("degrade_after_seconds", DatabaseHost.degrade_after_seconds)),
    )


def _bouncer_host(data: t.Mapping[str, t.Any]) -> BouncerHost:
    return BouncerHost(
        name=data["name"],
        cluster=data["cluster"],
        environment=data["environment"],
        address=data["address"],
        state_directory=data["state_directory"],
        database=data["database"],
        os_user=data["os_user"],
        port=data["port"],
        databases_file=data["databases_file"],
        databases=tuple(data["databases"]),
        processes=tuple(PoolerProcess(**process) for process in data["processes"]),
        monitor=Login(**data["monitor"]),
        members=_peers(data),
    )


def parse(data: t.Mapping[str, t.Any]) -> DatabaseHost | BouncerHost:
    """`member.json`'s content as a value. Raises `HmsError` naming what is missing."""
    try:
        return _database_host(data) if data["kind"] == "database" else _bouncer_host(data)
    except (KeyError, TypeError) as error:
        raise HmsError(
            f"{FILE_NAME} on this host lacks or has too much of something: {error}",
            reason="bad_member_config",
            next_step="Run playbooks/site.yml, which writes it.",
        ) from error


def load(config_directory: str) -> DatabaseHost | BouncerHost:
    """Read ``member.json`` in `config_directory`."""
    path = os.path.join(config_directory, FILE_NAME)
    try:
        data = read_json(path)
    except ValueError as error:
        raise HmsError(
            f"{path} is not JSON: {error}", reason="bad_member_config", next_step="Run playbooks/site.yml."
        ) from error
    if data is None:
        raise HmsError(
            f"There is no {path}: this host was not set up as a member of the cluster.",
            reason="not_a_member",
            state="Nothing was touched.",
            next_step="Run playbooks/site.yml for this host, or correct hms_config_dir in the inventory.",
        )
    return parse(data)


def slot_name(member: str) -> str:
    """The physical slot a member uses at its upstream."""
    return "".join(char if char.isascii() and (char.isalnum() or char == "_") else "_" for char in member.lower())


def synchronous_standby_names(policy: str, primary: str, members: t.Sequence[Peer]) -> str:
    """What ``synchronous_standby_names`` is to be when `primary` leads, by policy."""
    others = [member.name for member in members if member.name != primary and member.may_be_primary]
    if policy == "async" or not others:
        return ""
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in others)
    return f"ANY 1 ({names})"
