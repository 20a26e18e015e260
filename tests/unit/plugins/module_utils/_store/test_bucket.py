# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Times that botocore would read slowly are read as it reads them."""

from __future__ import annotations

import importlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._store.bucket import quick_time

usual = importlib.import_module("botocore.utils").parse_timestamp


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T22:56:30Z",
        "2026-11-22T22:56:30.000Z",
        "2026-02-28T00:00:00.123456Z",
        "Sun, 22 Nov 2026 22:56:30 GMT",
        "Tue, 01 Jan 2030 00:00:00 GMT",
    ],
)
def test_times_are_read_as_by_botocore(text: str) -> None:
    assert quick_time(text) == usual(text)


@pytest.mark.parametrize("text", ["2026-11-22T22:56:30+01:00", "2026-11-22T22:56:30.12Z", "1795388190", 1795388190, ""])
def test_others_are_left_to_botocore(text: object) -> None:
    assert quick_time(text) is None
