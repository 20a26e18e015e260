# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_history import (
    Fork,
    Stretch,
    find_fork,
    history_file,
    local_history,
    parse_history,
    past_fork,
)
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError

TEXT = "1\t0/3000000\tno recovery target specified\n\n# a comment\n2\t0/5000060\tafter a switchover\n"
ONE = parse_history("", 1)
TWO = parse_history("1\t0/3000000\treason\n", 2)
THREE = parse_history(TEXT, 3)


def test_parse() -> None:
    expected = (Stretch(1, 0, 0x3000000), Stretch(2, 0x3000000, 0x5000060), Stretch(3, 0x5000060, None))
    assert parse_history(TEXT, 3) == expected
    assert history_file(26) == "0000001A.history"


def test_nonsense_is_named() -> None:
    with pytest.raises(HmsError, match="has a line that isn't one"):
        parse_history("one two\n", 2)


@pytest.mark.parametrize(
    ("ours", "theirs", "fork"),
    [
        (ONE, ONE, None),
        (THREE, THREE, None),
        (ONE, TWO, Fork(1, 0x3000000)),
        (TWO, ONE, Fork(1, 0x3000000)),
        (ONE, THREE, Fork(1, 0x3000000)),
        (TWO, THREE, Fork(2, 0x5000060)),
        # both were promoted from timeline 1, at different places
        (TWO, parse_history("1\t0/2000000\tr\n", 3), Fork(1, 0x2000000)),
        (parse_history("1\t0/2000000\tr\n", 2), parse_history("1\t0/3000000\tr\n", 3), Fork(1, 0x2000000)),
        # both were promoted from timeline 1 at the same place
        (TWO, parse_history("1\t0/3000000\tr\n", 3), Fork(1, 0x3000000)),
    ],
)
def test_find_fork(ours: tuple[Stretch, ...], theirs: tuple[Stretch, ...], fork: Fork | None) -> None:
    assert find_fork(ours, theirs) == fork


def test_nothing_in_common() -> None:
    with pytest.raises(HmsError) as caught:
        find_fork(ONE, (Stretch(5, 0x100, None),))
    assert caught.value.reason == "no_common_history"


def test_past_fork() -> None:
    assert past_fork(ONE, Fork(1, 7)) == (Stretch(1, 7, None),)
    assert past_fork(THREE, Fork(1, 0x3000000)) == THREE[1:]
    assert past_fork(THREE, Fork(2, 0x4000000)) == (Stretch(2, 0x4000000, 0x5000060), THREE[2])


def test_local_history(tmp_path_factory: pytest.TempPathFactory) -> None:
    data = tmp_path_factory.mktemp("data")
    (data / "pg_wal").mkdir()
    assert local_history(str(data), 1) == ONE
    with pytest.raises(HmsError) as caught:
        local_history(str(data), 3)
    assert caught.value.reason == "history_missing"
    (data / "pg_wal" / "00000003.history").write_text(TEXT)
    assert local_history(str(data), 3) == THREE
