# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A promotion that is ordered twice: by a coordinator that died, and by the agent that goes on alone."""

from __future__ import annotations

import types
import typing as t

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._cluster.agent_standby import StandbyVerbs
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError


class Server:
    """A session whose server answers, one after the other, whether it is in recovery."""

    def __init__(self, *in_recovery: bool) -> None:
        self._answers = list(in_recovery)
        self.promotions = 0

    def value(self, sql: str) -> bool:
        assert sql == "SELECT pg_catalog.pg_is_in_recovery()"
        return self._answers.pop(0)

    def execute(self, sql: str) -> None:
        assert sql == "SELECT pg_catalog.pg_promote(false)"
        self.promotions += 1
        raise HmsError("recovery is not in progress", details={"sqlstate": "55000"})


def order(server: Server) -> None:
    handler = types.SimpleNamespace(host=None, context=None, session=lambda: server)
    StandbyVerbs(t.cast("t.Any", handler)).order_promotion()


def test_one_that_leads_already_is_not_asked() -> None:
    server = Server(False)
    order(server)
    assert server.promotions == 0


def test_one_that_ends_its_recovery_between_question_and_order_leads() -> None:
    server = Server(True, False)
    order(server)
    assert server.promotions == 1


def test_one_that_refuses_and_stays_a_standby_is_an_error() -> None:
    with pytest.raises(HmsError, match="recovery is not in progress"):
        order(Server(True, True))
