# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Ledgers on disk."""

from __future__ import annotations

import os
import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._workload import ledger
from ansible_collections.hms.postgres.plugins.module_utils._workload.ledger import Entry, Mark, Settings


def fill(directory: str, source: int, *entries: Entry) -> None:
    book = ledger.Ledger(directory, source)
    for entry in entries:
        book.append(entry)
    book.close()


def test_entries_come_back_as_they_were(tmp_path: pathlib.Path) -> None:
    entries = [
        Entry(2, 1, 1795363912.640328, 0.032991, "acked", ""),
        Entry(2, 2, 1795363913.0, 0.5, "unknown", "commit: ü"),
    ]
    fill(str(tmp_path), 2, *entries)
    assert list(ledger.read_ledger(str(tmp_path), 2)) == entries
    assert os.stat(tmp_path / "writer-2.jsonl").st_mode & 0o777 == 0o600


def test_a_line_that_is_not_finished_is_passed_over(tmp_path: pathlib.Path) -> None:
    fill(str(tmp_path), 1, Entry(1, 1, 5.0, 0.1, "acked", ""))
    with open(tmp_path / "writer-1.jsonl", "ab") as book:
        book.write(b"[1,2,6.0,0.")
    assert [entry.seq for entry in ledger.read_ledger(str(tmp_path), 1)] == [1]


def test_ledgers_are_merged_by_the_time_of_the_answer(tmp_path: pathlib.Path) -> None:
    fill(str(tmp_path), 1, Entry(1, 1, 1.0, 5.0, "acked", ""), Entry(1, 2, 7.0, 0.1, "acked", ""))
    fill(str(tmp_path), 2, Entry(2, 1, 2.0, 0.1, "acked", ""))
    assert [(entry.source, entry.seq) for entry in ledger.merged(str(tmp_path))] == [(2, 1), (1, 1), (1, 2)]


def test_settings_come_back_and_hold_no_password(tmp_path: pathlib.Path) -> None:
    settings = Settings(endpoints=(ConnectionParams(host="127.0.0.1", port=6432, passfile="/x/pass"),), writers=3)
    ledger.write_settings(str(tmp_path), settings)
    assert ledger.read_settings(str(tmp_path)) == settings


def test_a_folder_without_a_run_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(HmsError, match="no writers' run"):
        ledger.read_settings(str(tmp_path))


def test_marks_are_kept_in_order(tmp_path: pathlib.Path) -> None:
    assert ledger.read_marks(str(tmp_path)) == []
    ledger.add_mark(str(tmp_path), Mark(1.5, "kill", "/data"))
    ledger.add_mark(str(tmp_path), Mark(2.5, "ended"))
    assert ledger.read_marks(str(tmp_path)) == [Mark(1.5, "kill", "/data"), Mark(2.5, "ended", "")]


def test_clearing_takes_only_what_is_ours(tmp_path: pathlib.Path) -> None:
    for name in (
        "writer-1.jsonl",
        "run.json",
        "marks.jsonl",
        "workload.log",
        "workload.pid",
        "writer-1.jsonl.bak",
        "notes",
    ):
        (tmp_path / name).write_text("x")
    ledger.clear(str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["notes", "writer-1.jsonl.bak"]
