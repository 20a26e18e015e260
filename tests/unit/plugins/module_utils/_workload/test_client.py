# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What an error in COMMIT proves, and that bookings never meet."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._postgres import ConnectionParams
from ansible_collections.hms.postgres.plugins.module_utils._workload.client import MAX_WRITERS, is_certain, place
from ansible_collections.hms.postgres.plugins.module_utils._workload.ledger import Settings


@pytest.mark.parametrize(
    ("sqlstate", "severity", "certain"),
    [
        ("23503", "ERROR", True),  # a deferred constraint
        ("40001", "ERROR", True),  # a serialization failure
        ("25006", "ERROR", True),  # a read-only server
        ("40003", "ERROR", False),  # statement completion unknown
        ("57P01", "FATAL", False),  # ended by an administrator, perhaps while it waited for the standby
        ("57P02", "WARNING", False),
        ("57014", "ERROR", False),
        ("08P01", "FATAL", False),  # PgBouncer lost the server
        ("08006", "ERROR", False),
        ("58030", "ERROR", False),
        ("XX000", "ERROR", False),
        (None, None, False),  # the connection is gone
        ("23503", None, False),
    ],
)
def test_certainty(sqlstate: str | None, severity: str | None, certain: bool) -> None:
    assert is_certain(sqlstate, severity) is certain


def test_no_two_bookings_share_a_place() -> None:
    settings = Settings(endpoints=(ConnectionParams(host="x"),), patients=5000, doctors=60, users=400)
    places = set()
    for source in range(1, MAX_WRITERS + 1):
        for seq in range(1, 400):
            patient, doctor, number, user = place(source, seq, settings)
            assert 1 <= patient <= 5000
            assert 1 <= doctor <= 60
            assert 1 <= user <= 400
            places.add((doctor, number))
    assert len(places) == MAX_WRITERS * 399
