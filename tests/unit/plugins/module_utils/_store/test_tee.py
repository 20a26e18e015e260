# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One object into several stores: all of them or none."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._store.folder import FolderStore
from ansible_collections.hms.postgres.plugins.module_utils._store.folder_io import FolderWriter
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec
from ansible_collections.hms.postgres.plugins.module_utils._store.tee import Tee, put_everywhere


@pytest.fixture
def stores(tmp_path: pathlib.Path) -> list[FolderStore]:
    made = []
    for name in ("one", "two", "three"):
        (tmp_path / name).mkdir()
        made.append(FolderStore(FolderSpec(str(tmp_path / name))))
    return made


def break_at(monkeypatch: pytest.MonkeyPatch, method: str, store: FolderStore) -> None:
    """Let one method of the writers of one store fail."""
    real = getattr(FolderWriter, method)

    def failing(self: t.Any, *arguments: t.Any) -> t.Any:
        if self._root == store.name:
            raise HmsError(f"Cannot {method} {store.name}.", reason="store_failed")
        return real(self, *arguments)

    monkeypatch.setattr(FolderWriter, method, failing)


def test_every_store_gets_it(stores: list[FolderStore]) -> None:
    tee = Tee.create(stores, "c/a", size_hint=3)
    tee.write(b"1")
    tee.write(b"23")
    first = tee.commit()
    assert tee.stored[0] == first
    assert [item.key for item in tee.stored] == ["c/a"] * 3
    tee.abort()
    assert [store.get("c/a") for store in stores] == [b"123"] * 3
    put_everywhere(stores, "c/b", b"4")
    assert [store.get("c/b") for store in stores] == [b"4"] * 3


@pytest.mark.parametrize("broken", [0, 1, 2])
@pytest.mark.parametrize("method", ["write", "commit"])
def test_one_that_fails_takes_the_others_with_it(
    stores: list[FolderStore], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, method: str, broken: int
) -> None:
    break_at(monkeypatch, method, stores[broken])
    with pytest.raises(HmsError, match=f"Cannot {method} {stores[broken].name}"):
        put_everywhere(stores, "c/a", b"1")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_one_that_cannot_be_started_takes_the_others_with_it(stores: list[FolderStore], tmp_path: pathlib.Path) -> None:
    stores[2].put("c/a", b"theirs")
    with pytest.raises(HmsError, match="exists already"):
        Tee.create(stores, "c/a")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [tmp_path / "three/c/a"]


def test_what_cannot_be_taken_back_is_told(stores: list[FolderStore], monkeypatch: pytest.MonkeyPatch) -> None:
    break_at(monkeypatch, "commit", stores[1])

    def locked(_keys: t.Sequence[str]) -> None:
        raise HmsError("one is locked.")

    monkeypatch.setattr(stores[0], "remove", locked)
    with pytest.raises(HmsError) as caught:
        put_everywhere(stores, "c/a", b"1")
    assert "could not be removed: one is locked." in caught.value.state
    assert caught.value.details["left"] == ["one is locked."]


def test_a_tee_needs_a_store() -> None:
    with pytest.raises(HmsError, match="no store"):
        Tee.create([], "c/a")
