# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.filter.pg_config import FilterModule, pg_hba, pg_setting, pg_tuned


def test_the_filters_are_there() -> None:
    assert set(FilterModule().filters()) == {"pg_hba", "pg_setting", "pg_tuned"}


def test_sizes_may_come_as_text() -> None:
    found = pg_tuned({"work_mem": "1MB"}, memory_mb="4096", cores="2", max_connections="100")
    assert (found["shared_buffers"], found["work_mem"]) == ("1GB", "1MB")


def test_values_and_rules() -> None:
    assert pg_setting(True) == "'on'"
    rules = [{"type": "local", "databases": ["all"], "users": ["postgres"], "method": "peer"}]
    assert pg_hba(rules)[0].split() == ["local", "all", "postgres", "peer"]


def test_errors_are_ansibles() -> None:
    with pytest.raises(AnsibleFilterError, match="Next: Give at least 256 MB"):
        pg_tuned({}, memory_mb=1, cores=1, max_connections=1)
    with pytest.raises(AnsibleFilterError, match="whole numbers"):
        pg_tuned({}, memory_mb="much", cores=1, max_connections=1)
    with pytest.raises(AnsibleFilterError, match="on one line"):
        pg_setting("a\nb")
    with pytest.raises(AnsibleFilterError, match="nobody could log in"):
        pg_hba([])
