# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, ToolMissing
from ansible_collections.hms.postgres.plugins.module_utils._tools import compressors
from ansible_collections.hms.postgres.plugins.module_utils._tools.compressors import (
    compress_stage,
    decompress_stage,
    effective_level,
    method_of,
)

INSTALLED = {"zstd", "gzip", "igzip", "pigz", "lz4"}


@pytest.fixture
def programs(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What is installed; a test takes away what it wants."""
    here = set(INSTALLED)

    def find(name: str, **_where: str) -> str:
        if name not in here:
            raise ToolMissing(f"{name} is not installed")
        return f"/usr/bin/{name}"

    monkeypatch.setattr(compressors, "find_program", find)
    monkeypatch.setattr(compressors, "default_threads", lambda: 4)
    return here


def argv(method: str, level: int | None = None, threads: int | None = None) -> tuple[str, ...]:
    stage = compress_stage(method, level=level, threads=threads, os_user="postgres")
    assert stage is not None
    assert stage.os_user == "postgres"
    return stage.argv


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    ("method", "level", "threads", "expected"),
    [
        ("zstd", None, None, ("/usr/bin/zstd", "-T4", "-3", "--check", "--quiet", "--stdout")),
        ("zstd", 19, 1, ("/usr/bin/zstd", "-T1", "-19", "--check", "--quiet", "--stdout")),
        ("gzip", None, None, ("/usr/bin/igzip", "-1", "--threads", "4", "--stdout")),
        ("gzip", 6, 2, ("/usr/bin/pigz", "-6", "--processes", "2", "--no-name", "--stdout")),
        ("lz4", None, None, ("/usr/bin/lz4", "-1", "-q", "-z", "-c")),
    ],
)
def test_the_programs_are_called_like_this(
    method: str, level: int | None, threads: int | None, expected: tuple[str, ...]
) -> None:
    assert argv(method, level, threads) == expected


def test_gzip_takes_the_fastest_program_there_is(programs: set[str]) -> None:
    assert argv("gzip")[0] == "/usr/bin/igzip"
    programs.discard("igzip")
    assert argv("gzip")[0] == "/usr/bin/pigz"
    programs.discard("pigz")
    assert argv("gzip") == ("/usr/bin/gzip", "-1", "--no-name", "--stdout")


@pytest.mark.usefixtures("programs")
@pytest.mark.parametrize(
    ("method", "expected"),
    [
        ("zstd", ("/usr/bin/zstd", "--decompress", "--quiet", "--stdout")),
        ("gzip", ("/usr/bin/gzip", "--decompress", "--stdout")),
        ("lz4", ("/usr/bin/lz4", "-d", "-q", "-c")),
    ],
)
def test_the_plain_programs_read_it_back(method: str, expected: tuple[str, ...]) -> None:
    stage = decompress_stage(method)
    assert stage is not None
    assert stage.argv == expected


def test_none_is_no_stage() -> None:
    assert compress_stage("none") is None
    assert decompress_stage("none") is None


def test_a_missing_program_names_its_package(programs: set[str]) -> None:
    programs.discard("zstd")
    with pytest.raises(ToolMissing) as caught:
        compress_stage("zstd")
    assert "package zstd" in caught.value.next_step


@pytest.mark.parametrize(("method", "level"), [("zstd", 20), ("zstd", 0), ("gzip", 10), ("lz4", 13), ("bzip2", 1)])
def test_a_level_that_there_is_not_is_refused(method: str, level: int) -> None:
    with pytest.raises(HmsError) as caught:
        effective_level(method, level)
    assert caught.value.reason == "bad_config"


@pytest.mark.parametrize(
    ("name", "method"),
    [
        ("data.dump.zst.gpg", "zstd"),
        ("data.dump.gz", "gzip"),
        ("globals.sql.lz4.gpg", "lz4"),
        ("data.dump.gpg", "none"),
        ("data.dump", "none"),
    ],
)
def test_a_name_tells_the_method(name: str, method: str) -> None:
    assert method_of(name) == method
