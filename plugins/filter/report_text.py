# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter `hms.postgres.report_text`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report_text
short_description: Renders the record of an operation as one screen of text
version_added: 0.1.0
author:
  - the hms.postgres authors (@hms-postgres)
description:
  - Takes the record that a switchover, a failover, a rejoin, a restore, a drill, a recovery to a point in time, a
    backup or a cleanup leaves, and returns at most 40 lines of 80 columns, the verdict first, what to do next at the
    end.
  - The text holds no colours and no control characters, whatever the record holds.
positional: _input
options:
  _input:
    description: The record, as found in C(<id>.json) or folded from C(<id>.jsonl).
    type: dict
    required: true
seealso:
  - plugin: hms.postgres.report_html
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Say how the last failover went
  ansible.builtin.debug:
    msg: "{{ (lookup('ansible.builtin.file', record) | from_json | hms.postgres.report_text).splitlines() }}"
  vars:
    record: /var/lib/hms-postgres-demo/records/20261122T154500Z-failover-3fa9.json
"""

RETURN = r"""
_value:
  description: The text, its lines parted by line feeds.
  type: str
"""

import typing as t
from collections.abc import Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.plugin_utils._report.text import render_text


def report_text(record: t.Any) -> str:
    """The record as a screen of text."""
    if not isinstance(record, Mapping):
        raise AnsibleFilterError(
            f"report_text takes the record of an operation, a dictionary, and was given {type(record).__name__}. "
            "Read the record's file with the file lookup and from_json."
        )
    return render_text(record)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """The filters of this file."""
        return {"report_text": report_text}
