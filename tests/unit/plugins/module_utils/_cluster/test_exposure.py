# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import json
import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster import exposure
from ansible_collections.hms.postgres.plugins.module_utils._cluster.exposure import ExposureFile, Mark

STARTED = Mark("started", "2026-01-01T00:00:00.000Z", 0x3000148, "nobody streams", 0x3000100)
ENDED = Mark("ended", "2026-01-01T00:01:00.000Z", 0x3000200, "db2 is back")


def test_an_interval(tmp_path: pathlib.Path) -> None:
    kept = ExposureFile(str(tmp_path))
    assert kept.open_since() == ""
    kept.append(STARTED)
    assert kept.open_since() == STARTED.at
    kept.append(ENDED)
    assert kept.open_since() == ""
    lines = [json.loads(line) for line in (tmp_path / "exposure.jsonl").read_text().splitlines()]
    assert lines == [
        {
            "event": "started",
            "at": STARTED.at,
            "lsn": "0/3000148",
            "reason": "nobody streams",
            "confirmed_lsn": "0/3000100",
        },
        {"event": "ended", "at": ENDED.at, "lsn": "0/3000200", "reason": "db2 is back"},
    ]


def test_only_its_owner_reads_it(tmp_path: pathlib.Path) -> None:
    ExposureFile(str(tmp_path)).append(STARTED)
    assert (tmp_path / "exposure.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "torn", ['{"event": "ended", "at": "2026', "null\n", "[1]\n", '{"event": "other"}\n', "\x00\n"]
)
def test_a_torn_line_is_passed_over_and_the_next_one_stands_alone(tmp_path: pathlib.Path, torn: str) -> None:
    kept = ExposureFile(str(tmp_path))
    kept.append(STARTED)
    with open(kept.path, "a", encoding="utf-8") as target:
        target.write(torn)
    assert kept.open_since() == STARTED.at
    kept.append(ENDED)
    assert [mark["event"] for mark in kept.marks()] == ["started", "ended"]


def test_it_does_not_grow_for_ever(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exposure, "SIZE_LIMIT", 2000)
    monkeypatch.setattr(exposure, "KEPT_LINES", 4)
    kept = ExposureFile(str(tmp_path))
    for _round in range(100):
        kept.append(STARTED)
        kept.append(ENDED)
        assert pathlib.Path(kept.path).stat().st_size < 3000
    kept.append(STARTED)
    assert kept.open_since() == STARTED.at
    assert pathlib.Path(kept.path).stat().st_mode & 0o777 == 0o600
