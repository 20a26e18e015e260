# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Several jobs fed from one stream: an archive is restored in parallel without ever lying on a disk. PRIVATE.

pg_restore works with several jobs only where it may jump about, in a folder with a file for each table. We give it a
folder in memory that holds the table of contents, and a pipe with a name for each table. One pg_restore turns the
stream into the rows of one table after the other, and what it says goes into the pipe that is due. The one with the
jobs reads it, and builds indexes of the tables that have come while the next ones flow.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
import typing as t

from .._artifact.gpg_home import GpgHome
from .._artifact.staging import Staging
from .._command import identity
from .._errors import HmsError
from .._pipeline import CHUNK, Pipeline, Stage
from .._tools.archive_toc import LIMIT, CutShortError, DirectoryToc, Rows, UnsuitableError, directory_toc

UNSUITABLE = "not_streamable"
"""The reason of the error that says: restore it in another way."""
NAME = "archive"
_PLACE = "jobs"
_TOC = "toc.dat"
_PASSABLE = 0o710
_END = b"\n\\.\n"
_WHOLE = b"\\.\n\n\n"
"""How pg_dump ends a file with rows."""
_NAP = 0.002
_PROBE = 2.0
_SET_PIPE_SIZE = 1031  # fcntl.F_SETPIPE_SZ, which Python has since 3.10


class StreamLoad:
    """One restore. `head` sees the archive itself, `rows` the script with its rows; then `finish`, and always `close`.

    Args:
        stage: makes the pg_restore with several jobs for a folder.
        identifier: of the run.
        told: puts its failure into the words of a restore.
    """

    def __init__(
        self,
        stage: t.Callable[[str], Stage],
        *,
        identifier: str,
        jobs: int,
        os_user: str | None,
        deadline: float,
        what: str,
        told: t.Callable[[HmsError], HmsError],
    ) -> None:
        self._stage = stage
        self._jobs = jobs
        self._os_user = os_user
        self._deadline = deadline
        self._what = what
        self._told = told
        self._head: bytearray | None = bytearray()
        self._next_try = 0
        self._left: list[Rows] = []
        self._waiting: dict[str, int] = {}
        self._into: int | None = None
        self._rest = b"\n"
        self._first = False
        self._tables = 0
        self._stop = threading.Event()
        self._ended = threading.Event()
        self._failed: BaseException | None = None
        self._thread: threading.Thread | None = None
        self._stack = contextlib.ExitStack()
        try:
            self._path = os.path.join(self._folder(identifier), NAME)
        except BaseException:
            self._stack.close()
            raise

    def _folder(self, identifier: str) -> str:
        """A folder in memory with a guard: a job that waits for rows outlives us, and waits for ever otherwise."""
        home = GpgHome.make()
        self._stack.callback(home.remove)
        place = os.path.join(home.path, _PLACE)
        os.mkdir(place, 0o700)
        other = identity(self._os_user)
        if other:
            os.chown(home.path, -1, other["group"])
            os.chmod(home.path, _PASSABLE)
            os.chown(place, other["user"], other["group"])
        return self._stack.enter_context(Staging(place, identifier, os_user=self._os_user)).path

    def head(self, data: bytes) -> None:
        """The archive as it passes: once its table of contents is there the jobs begin."""
        if self._head is None:
            return
        self._head += data
        if len(self._head) < self._next_try:
            return
        try:
            toc = directory_toc(bytes(self._head))
        except CutShortError as error:
            if len(self._head) > LIMIT:
                raise _unsuitable("its table of contents is too large") from error
            # what has come is read again from its beginning, so not for every piece
            self._next_try = 2 * len(self._head) if len(self._head) > CHUNK else 0
            return
        except UnsuitableError as error:
            raise _unsuitable(str(error)) from error
        self._head = None
        self._begin(toc)

    def _begin(self, toc: DirectoryToc) -> None:
        self._left, self._tables = list(toc.tables), len(toc.tables)
        os.mkdir(self._path, 0o700)
        path = os.path.join(self._path, _TOC)
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as target:
            target.write(toc.content)
        made = [path]
        for rows in toc.tables:
            made.append(os.path.join(self._path, rows.file))
            os.mkfifo(made[-1], 0o600)
        other = identity(self._os_user)
        if other:
            for path in (*made, self._path):
                os.chown(path, other["user"], other["group"])
        self._thread = threading.Thread(target=self._run, name="restore jobs", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        stage = self._stage(self._path)
        try:
            Pipeline([stage], deadline=self._deadline, what=self._what, stop=self._stop).feed(lambda _size: b"")
        except HmsError as error:
            self._failed = self._told(error) if error.reason == "stage_failed" else error
        # An exception ends the thread that it happens in and nothing else: the one that waits for this raises it again.
        except BaseException as error:  # noqa: BLE001  it is handed over, not swallowed
            self._failed = error
        finally:
            self._ended.set()

    def rows(self, data: bytes) -> None:
        """The script as it passes: rows go to the table that is due, everything else is the jobs' own work."""
        self._rest += data
        while self._flow() if self._into is not None else self._find():
            pass

    def _find(self) -> bool:
        """Look for the next table's rows; whether there is more to look at."""
        if not self._left:
            self._rest = b""
            return False
        wanted = b"\n" + self._left[0].statement
        at = self._rest.find(wanted)
        if at < 0:
            self._rest = self._rest[-len(wanted) :]
            return False
        # the newline stays: right behind it the rows may end
        self._rest = self._rest[at + len(wanted) - 1 :]
        self._into = self._open(self._left.pop(0))
        self._first = True
        return True

    def _flow(self) -> bool:
        """Hand on what there is of a table's rows; whether there is more to look at behind them."""
        end = self._rest.find(_END)
        ended = end >= 0
        upto = end + 1 if ended else len(self._rest) - len(_END) + 1
        begin = 1 if self._first else 0
        if upto > begin:
            self._give(memoryview(self._rest)[begin:upto])
            self._rest, self._first = self._rest[upto:], False
        if not ended:
            return False
        if self._first:
            self._rest = self._rest[1:]
        self._give(memoryview(_WHOLE))
        self._rest = b"\n" + self._rest[len(_END) - 1 :]
        self._shut()
        return True

    def _open(self, rows: Rows) -> int:
        """The pipe of a table, once a job reads it: each does when it has nothing better to do."""
        probe = time.monotonic() + _PROBE
        handle = self._waiting.pop(rows.file, None)
        while handle is None:
            handle = self._try(rows)
            if handle is not None:
                break
            if self._ended.is_set():
                raise self._failure()
            if time.monotonic() > probe:
                self._probe()
                probe = time.monotonic() + _PROBE
            time.sleep(_NAP)
        os.set_blocking(handle, True)
        with contextlib.suppress(OSError):
            fcntl.fcntl(handle, _SET_PIPE_SIZE, CHUNK)
        return handle

    def _try(self, rows: Rows) -> int | None:
        try:
            return os.open(os.path.join(self._path, rows.file), os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            return None

    def _probe(self) -> None:
        """See that not all jobs wait for tables that come later: they would do so for ever."""
        for rows in self._left:
            if rows.file not in self._waiting:
                handle = self._try(rows)
                if handle is not None:
                    self._waiting[rows.file] = handle
        if len(self._waiting) >= self._jobs:
            raise HmsError(
                f"{self._what} came to a halt: pg_restore asks for the tables in another order than they come.",
                reason="restore_failed",
                phase="load",
                next_step="Restore with jobs: 1, and report this as a defect.",
            )

    def _give(self, view: memoryview) -> None:
        handle = t.cast(int, self._into)
        try:
            while view:
                view = view[os.write(handle, view) :]
        except BrokenPipeError:
            raise self._failure() from None

    def _failure(self) -> BaseException:
        """Why the jobs read no more."""
        self._ended.wait(max(0.0, self._deadline - time.monotonic()))
        return self._failed or HmsError(
            f"{self._what} failed: pg_restore ended before all rows had come.", reason="restore_failed", phase="load"
        )

    def _shut(self) -> None:
        if self._into is not None:
            os.close(self._into)
            self._into = None

    def finish(self) -> int:
        """Wait for the jobs, once everything has passed; how many tables there were."""
        if self._thread is None or self._left or self._into is not None:
            raise HmsError(
                f"{self._what} failed: not all rows that the table of contents names are in the archive.",
                reason="artifact_damaged",
                phase="load",
                next_step="Use another copy, or another backup.",
            )
        self._ended.wait()
        if self._failed is not None:
            raise self._failed
        return self._tables

    def close(self) -> None:
        """End the jobs, where they are still at work, and remove the folder."""
        self._stop.set()
        self._shut()
        for handle in self._waiting.values():
            os.close(handle)
        self._waiting.clear()
        if self._thread is not None:
            self._thread.join()
        self._stack.close()


def _unsuitable(why: str) -> HmsError:
    return HmsError(f"The archive can't be restored by several jobs at once: {why}.", reason=UNSUITABLE, phase="load")
