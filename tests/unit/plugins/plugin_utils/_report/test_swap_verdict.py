# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What a swap's record says to its reader."""

from __future__ import annotations

import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.plugin_utils._report.html import render_html
from ansible_collections.hms.postgres.plugins.plugin_utils._report.text import render_text

MESSAGE = "hospital is now what hospital_restore was; the database that clients used until then is kept as old."


def record(operation: str, **more: t.Any) -> dict[str, t.Any]:
    losses: dict[str, t.Any] = {
        "known": True,
        "count": 0,
        "bytes": None,
        "transactions": [],
        "basis": "counted in both",
    }
    clients: dict[str, t.Any] = {
        "acknowledged": 112,
        "failed": 0,
        "unknown": 0,
        "lost": 0,
        "longest_stall_seconds": 0.07,
        "samples": [],
    }
    outcome = {"status": "done", "message": MESSAGE, "next_steps": ["The way back: scratch: old."]}
    base = {"schema": 1, "id": f"20261122T162236Z-{operation}-15ad", "operation": operation, "cluster": "hospital"}
    return {**base, "steps": [], "losses": losses, "clients": clients, "outcome": outcome, **more}


@pytest.mark.parametrize("operation", ["swap", "rollback"])
def test_a_swap_says_which_database_is_live_and_how_long_clients_waited(operation: str) -> None:
    lines = render_text(record(operation)).splitlines()
    assert lines[0].startswith(f"{operation.upper()} of hospital")
    assert lines[0].endswith("DONE")
    said = " ".join(lines)
    assert MESSAGE in said
    assert "Writers waited 70 ms. Each write that clients were told of is in one of the two databases." in " ".join(
        said.split()
    )
    assert "The way back: scratch: old." in said
    assert MESSAGE in render_html(record(operation))


def test_what_was_not_measured_is_not_claimed() -> None:
    said = " ".join(render_text(record("swap", clients={})).split())
    assert "How long writers waited was not measured." in said
