# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filters by which playbooks render reports."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.filter import report_html, report_text
from ansible_collections.hms.postgres.plugins.plugin_utils._report.html import render_html
from ansible_collections.hms.postgres.plugins.plugin_utils._report.text import render_text
from ansible_collections.hms.postgres.tests.unit.plugins.plugin_utils._report import samples


def test_filters_render_records() -> None:
    record = samples.load("switchover_done")
    assert report_html.FilterModule().filters()["report_html"](record) == render_html(record)
    assert report_html.report_html(record, sha256="f00d") == render_html(record, sha256="f00d")
    assert report_text.FilterModule().filters()["report_text"](record) == render_text(record)


def test_filters_refuse_what_is_no_record() -> None:
    with pytest.raises(AnsibleFilterError, match="was given str"):
        report_html.report_html("{}")
    with pytest.raises(AnsibleFilterError, match="was given list"):
        report_text.report_text([])
