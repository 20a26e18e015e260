# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an instance is wished to be, what it is, and what is to be done. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import os
import typing as t

from .._tools.pg_cluster_tools import ListedInstance

State = t.Literal["present", "started"]
Restart = t.Literal["never", "allowed"]
StartConf = t.Literal["auto", "manual", "disabled"]
DataKind = t.Literal["missing", "empty", "cluster", "incomplete", "foreign", "not_a_directory"]

CONFIG_ROOT = "/etc/postgresql"
BINARY_ROOT = "/usr/lib/postgresql"


@dataclasses.dataclass(frozen=True)
class InstanceWish:
    """What the caller wants."""

    version: int
    name: str
    port: int
    data_directory: str
    socket_directory: str = "/var/run/postgresql"
    os_user: str = "postgres"
    encoding: str = "UTF8"
    locale: str = "C.UTF-8"
    checksums: bool = True
    start_conf: StartConf = "auto"
    state: State = "present"
    initialise: bool = True
    restart: Restart = "never"

    @classmethod
    def from_params(cls, params: t.Mapping[str, t.Any]) -> InstanceWish:
        """From a module's arguments; what wasn't given takes the default."""
        known = {field.name for field in dataclasses.fields(cls)}
        given = {key: value for key, value in params.items() if key in known and value is not None}
        given.setdefault("port", 5432)
        given.setdefault("data_directory", f"/var/lib/postgresql/{given['version']}/{given['name']}")
        return cls(**given)

    @property
    def title(self) -> str:
        """Version and name as Debian writes them, e.g. ``15/main``."""
        return f"{self.version}/{self.name}"

    @property
    def config_directory(self) -> str:
        """Where Debian keeps this instance's configuration."""
        return os.path.join(CONFIG_ROOT, str(self.version), self.name)

    @property
    def bin_directory(self) -> str:
        """Where this version's programs are."""
        return os.path.join(BINARY_ROOT, str(self.version), "bin")

    @property
    def scaffold_directory(self) -> str:
        """A stand-in for the data directory while Debian's configuration is made for one that exists.

        pg_createcluster removes its data directory when it fails half-way, so it never gets the real one.
        """
        parent, name = os.path.split(self.data_directory.rstrip("/"))
        return os.path.join(parent, f".{name}.hms-scaffold")

    @property
    def creation_marker(self) -> str:
        """A file that stands beside the data directory while we create the instance."""
        parent, name = os.path.split(self.data_directory.rstrip("/"))
        return os.path.join(parent, f".{name}.hms-creating")


@dataclasses.dataclass(frozen=True)
class DataDirectory:
    """What lies where the data should be."""

    kind: DataKind
    version: int | None = None
    owner: str = ""
    started_before: bool = False
    """Whether a postmaster ever ran in it (it leaves postmaster.opts)."""
    standby: bool = False
    system_identifier: str = ""
    control_state: str = ""
    timeline: int = 0
    checksums: bool | None = None
    sample: tuple[str, ...] = ()
    """A few names from a directory that isn't a cluster, for the message."""


@dataclasses.dataclass(frozen=True)
class PortHolder:
    """A process that listens on the wished port."""

    pid: int | None
    program: str


@dataclasses.dataclass(frozen=True)
class Postmaster:
    """The server process of the data directory."""

    pid: int
    executable: str
    deleted: bool
    """Whether its program file was replaced or removed since it started."""


@dataclasses.dataclass(frozen=True)
class PendingSetting:
    """A setting whose new value waits for a restart."""

    name: str
    running: str
    configured: str


@dataclasses.dataclass(frozen=True)
class ConfigError:
    """A line of a configuration file that the server does not take."""

    file: str
    line: int
    message: str


@dataclasses.dataclass(frozen=True)
class RunningFacts:
    """What the running server says about itself."""

    server_version: str
    in_recovery: bool
    timeline: int
    config_loaded_at: float
    encoding: str = ""
    locale: str = ""
    pending: tuple[PendingSetting, ...] = ()
    errors: tuple[ConfigError, ...] = ()


@dataclasses.dataclass(frozen=True)
class InstanceFacts:
    """What is there."""

    installed_version: str = ""
    """The version of the installed server program, '' where it isn't installed."""
    tools_present: bool = False
    """Whether Debian's cluster tools are installed."""
    configured: bool = False
    configured_data_directory: str = ""
    configured_port: int | None = None
    configured_socket_directory: str = ""
    start_conf: str = ""
    data: DataDirectory = DataDirectory(kind="missing")
    others: tuple[ListedInstance, ...] = ()
    """Every other instance that Debian's tools know on this host."""
    creation_interrupted: bool = False
    port_holder: PortHolder | None = None
    postmaster: Postmaster | None = None
    running: RunningFacts | None = None
    config_changed_at: float = 0.0
    config_changed_file: str = ""
    unreachable: str = ""
    """Why a running server could not be asked, '' when it could or is down."""

    @property
    def role(self) -> str:
        """primary, standby, or what a stopped instance would become."""
        if self.data.kind != "cluster":
            return "none"
        standby = self.running.in_recovery if self.running else self.data.standby
        return "standby" if standby else "primary"

    @property
    def binary_replaced(self) -> bool:
        """Whether the running server is older than the program on disk."""
        if self.postmaster is None:
            return False
        differs = bool(
            self.running and self.installed_version and self.running.server_version != self.installed_version
        )
        return self.postmaster.deleted or differs


ActionId = t.Literal[
    "clear_interrupted_creation",
    "create",
    "adopt",
    "finish_adoption",
    "set_port",
    "start",
    "reload",
    "restart",
]


@dataclasses.dataclass(frozen=True)
class InstanceAction:
    """One thing to do, and why."""

    id: ActionId
    what: str
    why: str

    def as_dict(self) -> dict[str, str]:
        """The action as plain data."""
        return {"id": self.id, "what": self.what, "why": self.why}


@dataclasses.dataclass(frozen=True)
class InstancePlan:
    """What is to be done, and what the operator should know."""

    actions: tuple[InstanceAction, ...] = ()
    warnings: tuple[str, ...] = ()
    pending_restart: tuple[PendingSetting, ...] = ()
    """Settings that wait for a restart which this plan doesn't do."""

    def has(self, *wanted: ActionId) -> bool:
        """Whether one of these actions is planned."""
        return any(action.id in wanted for action in self.actions)
