# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Unit tests: a script's rows on their way into pipes; `cp` reads those as pg_restore would, one after the other."""

from __future__ import annotations

import contextlib
import os
import pathlib
import time
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._pipeline import Stage
from ansible_collections.hms.postgres.plugins.module_utils._restore.load import sorting_memory
from ansible_collections.hms.postgres.plugins.module_utils._restore.stream_load import StreamLoad
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._tools.test_archive_toc import Entry, archive

NAMES = ("a", "b", "c")
HEAD = archive([Entry(number, "TABLE DATA", f"COPY {name} FROM stdin;\n") for number, name in enumerate(NAMES)])
ROWS = {"0.dat": b"1\tx\n2\t\\\\.\n", "1.dat": b"", "2.dat": b"COPY a FROM stdin;\n\\N\n" + b"row\n" * 500}
SCRIPT = b"--\n-- a dump\n--\n\nSET x = 1;\n" + b"".join(
    b"\n--\n-- Data\n--\n\nCOPY %s FROM stdin;\n%s\\.\n\n" % (name.encode(), rows)
    for name, rows in zip(NAMES, ROWS.values(), strict=True)
)
SCRIPT += b"SELECT pg_catalog.setval('s', 1);\n--\n-- complete\n--\n"


@contextlib.contextmanager
def loading(target: pathlib.Path, *names: str, jobs: int = 1) -> t.Iterator[StreamLoad]:
    """A load whose only job copies the tables of those names."""

    def stage(folder: str) -> Stage:
        return Stage("cp", ("/bin/cp", *(os.path.join(folder, name) for name in names), str(target)))

    load = StreamLoad(
        stage,
        identifier="test",
        jobs=jobs,
        os_user=None,
        deadline=time.monotonic() + 30,
        what="The restore",
        told=lambda error: error,
    )
    with contextlib.closing(load):
        yield load


@pytest.mark.parametrize("size", [1, 2, 3, 5, 7, 64, 100_000])
def test_rows_go_to_their_tables_however_they_come(tmp_path: pathlib.Path, size: int) -> None:
    with loading(tmp_path, *ROWS) as load:
        for start in range(0, len(HEAD), size):
            load.head(HEAD[start : start + size])
        load.head(b"behind it")
        for start in range(0, len(SCRIPT), size):
            load.rows(SCRIPT[start : start + size])
        assert load.finish() == 3
    for name, rows in ROWS.items():
        assert (tmp_path / name).read_bytes() == rows + b"\\.\n\n\n"


def test_rows_that_never_come(tmp_path: pathlib.Path) -> None:
    with loading(tmp_path, *ROWS) as load:
        load.head(HEAD)
        load.rows(SCRIPT[: SCRIPT.index(b"COPY c")])
        with pytest.raises(HmsError) as caught:
            load.finish()
    assert caught.value.reason == "artifact_damaged"


def test_a_job_that_ends_too_early_is_why_nobody_reads(tmp_path: pathlib.Path) -> None:
    with loading(tmp_path, "0.dat", "nothing.dat") as load:
        load.head(HEAD)
        with pytest.raises(HmsError, match=r"cp ended with 1"):
            load.rows(SCRIPT)


def test_jobs_that_want_another_order_are_noticed(tmp_path: pathlib.Path) -> None:
    with loading(tmp_path, "2.dat", "1.dat", "0.dat") as load:
        load.head(HEAD)
        with pytest.raises(HmsError, match="another order") as caught:
            load.rows(SCRIPT)
    assert "jobs: 1" in caught.value.next_step


def test_an_archive_that_no_folder_can_stand_for(tmp_path: pathlib.Path) -> None:
    with loading(tmp_path) as load:
        with pytest.raises(HmsError) as caught:
            load.head(archive([Entry(1, "BLOBS", "")]))
        assert caught.value.reason == "not_streamable"


@pytest.mark.parametrize(
    ("server", "available", "jobs", "expected"),
    [
        (64 << 20, 0, 2, 64 << 20),
        (64 << 20, 4 << 30, 2, 128 << 20),
        (64 << 20, 64 << 30, 2, 256 << 20),
        (1 << 30, 64 << 30, 2, 1 << 30),
    ],
)
def test_memory_for_sorting(server: int, available: int, jobs: int, expected: int) -> None:
    assert sorting_memory(server, available, jobs) == expected
