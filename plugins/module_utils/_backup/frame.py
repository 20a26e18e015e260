# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One backup, whatever makes it: lock, look, record, make, keep, and what is told of it. PRIVATE.

An engine says how to look, what it would make, how it makes it and how it removes what no rule keeps. What surrounds
that is the same for all of them and stands here.
"""

from __future__ import annotations

import abc
import contextlib
import dataclasses
import typing as t

from .._artifact.manifest import Manifest
from .._clock import Clock
from .._errors import HmsError
from .._files import HeldLock
from .._module import Result
from .keeping import Keeping
from .look import Ports
from .model import Wish
from .operation import alone, check_user, ending_properly, finish_failed, lock_path, start_record, who
from .record import BackupRecord, ServerClock


class Seen(t.Protocol):
    """What every look finds out."""

    @property
    def identifier(self) -> str:
        """The id of the backup to be made."""

    @property
    def clock(self) -> ServerClock:
        """The server's time."""


SeenT = t.TypeVar("SeenT", bound=Seen)


@dataclasses.dataclass(frozen=True)
class Made:
    """What was made, and what is to be known about it; in check mode what would be made.

    Attributes:
        plan: as plain data.
        manifest: None in check mode.
    """

    plan: t.Mapping[str, t.Any]
    manifest: Manifest | None
    warnings: tuple[str, ...] = ()


class Operation(abc.ABC, t.Generic[SeenT]):
    """One backup by one engine."""

    def __init__(self, wish: Wish, ports: Ports) -> None:
        self._wish = wish
        self._ports = ports
        self._deadline = 0.0
        """The moment by our monotonic clock at which all is ended."""

    def run(self, *, check_mode: bool) -> Result:
        """Make it; in check mode say what would be made."""
        check_user(self._wish.os_user)
        if check_mode:
            return self._preview()
        with ending_properly(), alone(self._wish, clock=self._ports.clock, by=self._ports.by):
            return self._run()

    @abc.abstractmethod
    def _look(self, stack: contextlib.ExitStack, /, *, check_mode: bool) -> SeenT:
        """Look at everything; what was opened is closed by `stack`."""

    @abc.abstractmethod
    def _planned(self, seen: SeenT) -> tuple[Made, Keeping]:
        """What would be made and removed."""

    @abc.abstractmethod
    def _make(self, seen: SeenT, record: BackupRecord) -> tuple[Made, Manifest]:
        """Make it. When this raises there is none."""

    @abc.abstractmethod
    def _keep(self, seen: SeenT, manifest: Manifest, record: BackupRecord) -> Keeping:
        """Remove what no rule keeps. Nothing here spoils the backup."""

    @abc.abstractmethod
    def _known(self, seen: SeenT) -> t.Mapping[str, t.Sequence[str]]:
        """The ids that were there before, by store."""

    def _record(self, identifier: str, clock: Clock) -> BackupRecord:
        return start_record(self._wish, identifier, host=self._ports.host, by=self._ports.by, clock=clock)

    def _preview(self) -> Result:
        with contextlib.ExitStack() as stack:
            seen = self._look(stack, check_mode=True)
            made, keeping = self._planned(seen)
        holder = HeldLock(lock_path(self._wish)).look()
        busy = [f"Another backup is at work now: {who(holder)}."] if holder else []
        return self._result(seen, made, keeping, record=None, warnings=busy)

    def _run(self) -> Result:
        self._deadline = self._ports.clock.monotonic() + self._wish.timeout
        with contextlib.ExitStack() as stack:
            seen = self._look(stack, check_mode=False)
            record = self._record(seen.identifier, seen.clock)
            with recorded(record):
                made, manifest = self._make(seen, record)
            keeping = self._keep(seen, manifest, record)
            record.finish("done", f"Backup {manifest.id} is complete: {manifest.bytes} bytes.")
            return self._result(seen, made, keeping, record=record.path)

    def _result(
        self, seen: SeenT, made: Made, keeping: Keeping, *, record: str | None, warnings: t.Sequence[str] = ()
    ) -> Result:
        before = {name: list(ids) for name, ids in self._known(seen).items()}
        gone = {(one["store"], one["id"]) for one in keeping.removed}
        after = {
            name: [*(one for one in ids if (name, one) not in gone), seen.identifier] for name, ids in before.items()
        }
        return Result(
            changed=True,
            values={
                "id": seen.identifier,
                "plan": dict(made.plan),
                "backup": made.manifest.as_dict() if made.manifest else None,
                "removed": list(keeping.removed),
                "kept": list(keeping.kept),
                "record": record,
            },
            before=before,
            after=after,
            warnings=tuple(dict.fromkeys([*made.warnings, *keeping.warnings, *warnings])),
        )


@contextlib.contextmanager
def recorded(record: BackupRecord) -> t.Iterator[None]:
    """End the record as failed when what is done inside fails."""
    try:
        yield
    except HmsError as error:
        finish_failed(record, error)
        raise
    except BaseException as error:
        record.finish("failed", f"It was ended: {type(error).__name__}.")
        raise
