# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""An artifact's rows on their way into an empty database, by whichever way fits. PRIVATE.

====================================  ===========================================================
a script                              statement by statement over our own connection
an archive                            one stream into one pg_restore: nothing of it lies on a disk
an archive, several jobs asked for    they read it from a file without a name
the directory format                  several jobs read it from a folder that a guard removes
====================================  ===========================================================

Several jobs can't be fed from a stream through pipes: since 15.20 pg_restore refuses files that are not regular ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pwd
import typing as t

from .._artifact import directory
from .._artifact.staging import Staging
from .._artifact.verify import is_directory
from .._errors import HmsError
from .._pipeline import Pipeline, Stage
from .._postgres import ConnectionParams, Session
from .._tools.pg_restore import PgRestore
from .._tools.tar import Tar
from .find import jobs_of
from .look import Look
from .model import Order
from .plan import needed_bytes
from .pour import explained, no_room
from .run_sql import run_script
from .sorting import sorting_memory, this_host

_SPEED = {"synchronous_commit": "off", "jit": "off"}
"""Commits need not reach the disk one by one: the mark at the end does, and everything before it with it.

What a restore asks for is too short to be worth a compiler."""
_NOTICE_A_KILL = {"client_connection_check_interval": "5s"}
"""A server goes on building an index for a client that is dead otherwise; since PostgreSQL 14."""
_PASSABLE = 0o011
"""The server's user must get through to its own folder."""


class Loader:
    """Loads one artifact into one database."""

    def __init__(
        self,
        order: Order,
        seen: Look,
        params: ConnectionParams,
        session: t.Callable[[], contextlib.AbstractContextManager[Session]],
        *,
        no_tablespaces: bool,
    ) -> None:
        self._order = order
        self._seen = seen
        self._params = params
        self._session = session
        self._no_tablespaces = no_tablespaces
        self._jobs = jobs_of(seen.artifact, order)
        self._what = f"The restore of {seen.artifact.name}"

    def load(self) -> str:
        """All of it; what is to be told of it."""
        artifact, pourer = self._seen.artifact, self._seen.pourer
        if artifact.kind == "sql":
            with self._session() as session:
                run_script(
                    session,
                    artifact.name,
                    lambda sink: pourer.pour(artifact.member, what=self._what, sink=sink),
                    pourer.deadline,
                )
            return "ran the script to its end"
        if is_directory(artifact.member):
            return self._from_folder()
        if self._jobs > 1:
            return self._from_file()
        stored = pourer.pour(artifact.member, what=self._what, last=[self._program()])
        return f"{stored.bytes} stored bytes, SHA-256 {stored.sha256}; one job"

    def _program(self, folder: str | None = None) -> Stage:
        tool = PgRestore(self._seen.clients.pg_restore.path, os_user=self._order.os_user)
        stage = tool.into_database_stage(self._params, owners=True, directory=folder, jobs=self._jobs)
        # a subscription would fight for the original's slot
        argv = (*stage.argv, "--no-subscriptions", *(["--no-tablespaces"] if self._no_tablespaces else []))
        return dataclasses.replace(stage, argv=argv, env={**stage.env, "PGOPTIONS": self._settings()})

    def _settings(self) -> str:
        seen = self._seen
        memory = sorting_memory(needed_bytes(seen.artifact), self._jobs, this_host())
        found = {**_SPEED, "maintenance_work_mem": f"{memory // 1024}kB"}
        if seen.target.server.major >= 14:
            found.update(_NOTICE_A_KILL)
        return " ".join(f"-c {name}={value}" for name, value in found.items())

    def _from_file(self) -> str:
        staged = self._seen.pourer.staged(self._seen.artifact.member, self._order.work_dir)
        try:
            stage = self._program()
            argv = (*stage.argv, f"--jobs={self._jobs}", "/dev/stdin")
            self._run(dataclasses.replace(stage, argv=argv, stdin=staged.fileno()))
        finally:
            staged.close()
        return f"staged in a file without a name; {self._jobs} jobs"

    def _run(self, stage: Stage) -> None:
        try:
            # workers that outlive pg_restore would keep its stdout open, so nobody reads that
            Pipeline([stage], deadline=self._seen.pourer.deadline, what=self._what).run()
        except HmsError as error:
            if error.reason != "stage_failed":
                raise
            raise explained(error, self._seen.artifact.member.name) from error

    def _from_folder(self) -> str:
        """Unpack it to a disk, where a guard removes it whatever becomes of us."""
        order, artifact, pourer = self._order, self._seen.artifact, self._seen.pourer
        place = staging_place(order)
        with Staging(place, self._seen.identifier, os_user=order.os_user) as staging:
            tar = Tar(os_user=order.os_user).extract_stage(staging.path)
            try:
                stored = pourer.pour(artifact.member, what=f"Unpacking {artifact.name}", last=[tar])
            except HmsError as error:
                raise _unpacking(error, place) from error
            self._run(self._program(os.path.join(staging.path, directory.NAME)))
        return f"{stored.bytes} stored bytes, SHA-256 {stored.sha256}; unpacked in {place}; {self._jobs} jobs"


def staging_place(order: Order) -> str:
    """The folder below which the directory format is unpacked: the user's own, that nobody else can look into."""
    place = os.path.join(order.work_dir, "unpacked")
    try:
        os.makedirs(order.work_dir, mode=0o711, exist_ok=True)
        os.makedirs(place, mode=0o700, exist_ok=True)
        if order.os_user is not None and os.geteuid() == 0:
            entry = pwd.getpwnam(order.os_user)
            mode = os.stat(order.work_dir).st_mode | _PASSABLE
            os.chmod(order.work_dir, mode)
            os.chown(place, entry.pw_uid, entry.pw_gid)
    except OSError as error:
        raise no_room(order.work_dir, error.strerror, unpacked=True) from error
    return place


def _unpacking(error: HmsError, place: str) -> HmsError:
    tail = str(error.details.get("stderr_tail", ""))
    if "No space left on device" in f"{error.message} {tail}":
        return no_room(place, "No space left on device", unpacked=True)
    if error.reason == "restore_failed":
        error.reason, error.phase = "artifact_damaged", "unpack"
        error.next_step = "Use another copy, or another backup."
    return error
