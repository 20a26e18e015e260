# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One object into several stores at the same time. PRIVATE to the collection."""

from __future__ import annotations

import datetime
import typing as t

from .._errors import HmsError
from . import common
from .model import ObjectStore, ObjectWriter, StoredObject


class Tee:
    """A writer over one writer per store: all of them, or none.

    The error of a store that fails is raised as it is (it names the store and the key), after all were aborted.
    """

    def __init__(self, key: str, ends: t.Sequence[tuple[ObjectStore, ObjectWriter]]) -> None:
        self._key = key
        self._ends = tuple(ends)
        self.stored: tuple[StoredObject, ...] = ()
        """After `commit`: what each store has, in the order of the stores."""

    @classmethod
    def create(
        cls,
        stores: t.Sequence[ObjectStore],
        key: str,
        *,
        size_hint: int | None = None,
        lock_until: datetime.datetime | None = None,
    ) -> Tee:
        """Start the same object in every store."""
        if not stores:
            raise HmsError(f"There is no store for {common.check_key(key)}.", reason="defect")
        tee = cls(key, ())
        try:
            for store in stores:
                writer = store.create(key, size_hint=size_hint, lock_until=lock_until)
                tee._ends += ((store, writer),)
        except BaseException:
            tee.abort()
            raise
        return tee

    def write(self, data: bytes) -> None:
        """Add bytes, to all."""
        try:
            for _store, writer in self._ends:
                writer.write(data)
        except BaseException:
            self.abort()
            raise

    def commit(self) -> StoredObject:
        """Make it visible everywhere; where one store can't, it is removed from those that could."""
        done: list[StoredObject] = []
        try:
            for _store, writer in self._ends:
                done.append(writer.commit())
        except BaseException as error:
            self._undo(len(done), error)
            raise
        self.stored = tuple(done)
        return done[0]

    def _undo(self, count: int, error: BaseException) -> None:
        self.abort()
        left = []
        for store, _writer in self._ends[:count]:
            try:
                store.remove([self._key])
            except HmsError as problem:
                left.append(problem.message)
        if left and isinstance(error, HmsError):
            error.state = " ".join([error.state, "What another store had already could not be removed:", *left]).strip()
            error.details["left"] = left

    def abort(self) -> None:
        """Leave nothing; harmless after `commit` or `abort`."""
        for _store, writer in self._ends:
            writer.abort()


def put_everywhere(
    stores: t.Sequence[ObjectStore], key: str, data: bytes, *, lock_until: datetime.datetime | None = None
) -> None:
    """A small object into every store, or into none: where one fails, it is removed from those that have it."""
    tee = Tee.create(stores, key, size_hint=len(data), lock_until=lock_until)
    tee.write(data)
    tee.commit()
