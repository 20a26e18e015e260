# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Carrying an instance's plan out. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import typing as t

from .._clock import Clock, iso, wait_until
from .._command import CommandRunner
from .._errors import ConnectionFailed, DeadlinePassed, HmsError
from .._files import dump_json, remove_file, sync_directory, write_atomic
from .._postgres import ConnectionParams
from .._tools.pg_cluster_tools import PgConfTool, PgCreateCluster, PgCtlCluster
from .._tools.service import InstanceService
from .instance_facts import Connector, postmaster_address
from .instance_model import InstanceAction, InstancePlan, InstanceWish

SAMPLE = "/usr/share/postgresql/{version}/postgresql.conf.sample"
START_TIMEOUT = 300.0
RELOAD_TIMEOUT = 15.0

_CLOSED_HBA = """\
# Made when this instance was taken over; the role hms.postgres.postgresql replaces it.
local all {os_user} peer
"""


def make_parents(path: str) -> None:
    """Create the folders above `path`, open for traversal whatever our umask is."""
    parent = os.path.dirname(path.rstrip("/"))
    if os.path.isdir(parent):
        return
    make_parents(parent)
    os.mkdir(parent)
    os.chmod(parent, 0o755)  # noqa: S103  the server's user must be able to pass through; it holds nothing itself


def empty_directory(path: str) -> None:
    """Remove what is in a directory, but not the directory: it may be a mount point."""
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(path):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                os.unlink(entry.path)
        sync_directory(path)


class InstanceApplier:
    """Does what the plan says, one action after the other; decides nothing."""

    def __init__(self, wish: InstanceWish, *, runner: CommandRunner, connect: Connector, clock: Clock) -> None:
        self._wish = wish
        self._runner = runner
        self._connect = connect
        self._clock = clock
        self._service = InstanceService(
            runner, version=wish.version, instance=wish.name, data_directory=wish.data_directory
        )

    def apply(self, plan: InstancePlan) -> None:
        """Carry out all actions. An error tells which were done before it."""
        steps: dict[str, t.Callable[[], None]] = {
            "clear_interrupted_creation": self._clear,
            "create": self._create,
            "adopt": self._adopt,
            "finish_adoption": self._finish_adoption,
            "set_port": self._set_port,
            "start": self._start,
            "reload": self._reload,
            "restart": self._restart,
        }
        done: list[InstanceAction] = []
        for action in plan.actions:
            try:
                steps[action.id]()
            except HmsError as error:
                error.phase = error.phase or "apply"
                error.details["done"] = [known.as_dict() for known in done]
                error.details["failed"] = action.as_dict()
                raise
            done.append(action)

    def _clear(self) -> None:
        empty_directory(self._wish.data_directory)
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._wish.config_directory)

    def _create(self) -> None:
        wish = self._wish
        make_parents(wish.data_directory)
        note = {"instance": wish.title, "data_directory": wish.data_directory, "at": iso(self._clock.now())}
        write_atomic(wish.creation_marker, dump_json(note), mode=0o600)
        PgCreateCluster(self._runner).create(
            version=wish.version,
            name=wish.name,
            os_user=wish.os_user,
            data_directory=wish.data_directory,
            socket_directory=wish.socket_directory,
            port=wish.port,
            start_conf=wish.start_conf,
            encoding=wish.encoding,
            locale=wish.locale,
            checksums=wish.checksums,
        )
        remove_file(wish.creation_marker)

    def _adopt(self) -> None:
        wish = self._wish
        self._build_scaffold()
        PgCreateCluster(self._runner).adopt(
            version=wish.version,
            name=wish.name,
            os_user=wish.os_user,
            data_directory=wish.scaffold_directory,
            socket_directory=wish.socket_directory,
            port=wish.port,
            start_conf=wish.start_conf,
        )
        self._finish_adoption()

    def _build_scaffold(self) -> None:
        """What pg_createcluster expects of a data directory: a version and three configuration files."""
        wish = self._wish
        scaffold = wish.scaffold_directory
        shutil.rmtree(scaffold, ignore_errors=True)
        os.mkdir(scaffold, 0o700)
        entry = pwd.getpwnam(wish.os_user)
        os.chown(scaffold, entry.pw_uid, entry.pw_gid)
        settings = "# The settings are in conf.d.\n"
        with contextlib.suppress(FileNotFoundError), open(SAMPLE.format(version=wish.version), encoding="utf-8") as src:
            settings = src.read()
        files = {
            "PG_VERSION": f"{wish.version}\n",
            "postgresql.conf": settings,
            "pg_hba.conf": _CLOSED_HBA.format(os_user=wish.os_user),
            "pg_ident.conf": "",
        }
        for name, content in files.items():
            write_atomic(os.path.join(scaffold, name), content, mode=0o600, owner=wish.os_user)

    def _finish_adoption(self) -> None:
        wish = self._wish
        PgConfTool(self._runner, version=wish.version, name=wish.name).set("data_directory", wish.data_directory)
        shutil.rmtree(wish.scaffold_directory, ignore_errors=True)

    def _set_port(self) -> None:
        wish = self._wish
        PgConfTool(self._runner, version=wish.version, name=wish.name).set("port", str(wish.port))

    def _start(self) -> None:
        self._service.start(timeout=START_TIMEOUT)

    def _restart(self) -> None:
        PgCtlCluster(self._runner, version=self._wish.version, name=self._wish.name).stop()
        self._start()

    def _loaded_at(self) -> float:
        """When the postmaster last read its configuration, asked over a new connection.

        The postmaster forks no new session while it reads, so a new session that knows the new time proves
        that pg_hba.conf and the certificates were read too.
        """
        host, port = postmaster_address(self._wish.data_directory) or (self._wish.socket_directory, self._wish.port)
        session = self._connect(ConnectionParams(host=host, port=port, user=self._wish.os_user))
        try:
            return float(session.value("SELECT EXTRACT(epoch FROM pg_catalog.pg_conf_load_time())::float8"))
        finally:
            session.close()

    def _reload(self) -> None:
        before = self._loaded_at()
        self._service.signal_postmaster(signal.SIGHUP)

        def reloaded() -> bool:
            with contextlib.suppress(ConnectionFailed):
                return self._loaded_at() > before
            return False

        if not wait_until(reloaded, clock=self._clock, timeout=RELOAD_TIMEOUT, interval=0.05):
            raise DeadlinePassed(
                f"{self._wish.title} did not read its configuration again within {RELOAD_TIMEOUT:g} seconds.",
                reason="reload_not_seen",
                state="The server runs, with its old configuration as far as can be seen.",
                next_step="Read its log; the signal was sent.",
            )
