# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A plugin for pytest: a test that skips itself has failed.

`make` installs what the tests need before it runs them, so a skip there means that
something was not tested although it should have been.
"""

from __future__ import annotations

import typing as t

import pytest


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> t.Iterator[None]:
    """Turn the report of a skipped test into that of a failed one."""
    outcome = yield
    report: pytest.TestReport = t.cast(t.Any, outcome).get_result()
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was not run: {reason}"
