# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Metrics: in the exposition format, each job's own, old or new and never half."""

from __future__ import annotations

import pathlib
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._backup.metrics import (
    KNOWN,
    Sample,
    parse,
    render,
    update_textfile,
    write_textfile,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._files import HeldLock

SIZE = "hms_backup_size_bytes"


def test_samples_are_grouped_and_escaped() -> None:
    samples = [
        Sample(SIZE, 12.0, {"job": "b", "database": 'we"ird\\\nname'}),
        Sample("own_metric", float("nan")),
        Sample(SIZE, 1.5, {"job": "a"}),
        Sample(SIZE, 2.0, {"job": "a"}),
        Sample("own_limit", float("inf")),
    ]
    text = render(samples)
    assert text.splitlines() == [
        f"# HELP {SIZE} {KNOWN[SIZE]}",
        f"# TYPE {SIZE} gauge",
        f'{SIZE}{{database="we\\"ird\\\\\\nname",job="b"}} 12',
        f'{SIZE}{{job="a"}} 2',
        "# TYPE own_limit gauge",
        "own_limit +Inf",
        "# TYPE own_metric gauge",
        "own_metric NaN",
    ]
    assert text.endswith("\n")
    assert parse(text)[0] == samples[0]
    assert render(parse(text)) == text


def test_lines_of_others_are_passed_over() -> None:
    assert parse('# HELP x y\n\nnonsense\nx{a="b"} many\nx 1 1700000000\nx 1\n') == [Sample("x", 1.0)]


def test_a_name_that_is_none() -> None:
    with pytest.raises(HmsError, match="can't be a metric's name"):
        render([Sample("a b", 1)])


def test_a_file_is_replaced_as_a_whole(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "hms.prom"
    assert write_textfile(str(path), [Sample(SIZE, 1)])
    assert not write_textfile(str(path), [Sample(SIZE, 1)])
    assert path.stat().st_mode & 0o7777 == 0o644
    assert [entry.name for entry in tmp_path.iterdir()] == ["hms.prom"]


def test_each_job_replaces_its_own(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "hms.prom")
    daily, hourly = {"job": "daily", "database": "d"}, {"job": "hourly", "database": "d"}
    update_textfile(path, [Sample(SIZE, 1, daily), Sample("old", 1, daily)], owner={"job": "daily"})
    update_textfile(path, [Sample(SIZE, 2, hourly)], owner={"job": "hourly"})
    update_textfile(path, [Sample(SIZE, 3, daily)], owner={"job": "daily"})
    assert parse(pathlib.Path(path).read_text()) == [Sample(SIZE, 3.0, daily), Sample(SIZE, 2.0, hourly)]


def test_jobs_take_turns(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "hms.prom"
    lock = HeldLock(f"{path}.lock")
    assert lock.acquire({}) is None
    with pytest.raises(HmsError, match="another job is writing") as caught:
        update_textfile(str(path), [], owner={})
    assert caught.value.reason == "metrics_failed"
    lock.release()
    assert update_textfile(str(path), [], owner={})


@pytest.mark.parametrize("path", ["relative.prom", "/srv/file.txt"])
def test_a_path_that_nobody_reads(path: str) -> None:
    attempts: list[t.Callable[[], bool]] = [
        lambda: write_textfile(path, []),
        lambda: update_textfile(path, [], owner={}),
    ]
    for attempt in attempts:
        with pytest.raises(HmsError, match="end in \\.prom") as caught:
            attempt()
        assert caught.value.reason == "bad_config"


def test_a_folder_that_is_missing(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "no" / "hms.prom")
    with pytest.raises(HmsError, match="No such file or directory") as caught:
        write_textfile(path, [])
    assert caught.value.reason == "metrics_failed"

    def refuse(*_arguments: object) -> None:
        raise PermissionError(13, "no")

    monkeypatch.setattr(HeldLock, "acquire", refuse)
    with pytest.raises(HmsError, match="Permission denied"):
        update_textfile(path, [], owner={})
