# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter `hms.postgres.report_html`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: report_html
short_description: Renders the record of an operation as one self-contained HTML page
version_added: 0.1.0
author:
  - the hms.postgres authors (@hms-postgres)
description:
  - Takes the record that a switchover, a failover, a rejoin, a restore, a drill, a recovery to a point in time, a
    backup or a cleanup leaves, and returns a page that says what happened, draws it on a time line, and shows the
    proof.
  - The page needs nothing but itself. It loads no fonts, images, styles or scripts, prints on A4 and follows the
    reader's choice of light or dark.
  - Records that end early are rendered as far as they go, and the page says that they end early.
positional: _input
options:
  _input:
    description: The record, as found in C(<id>.json) or folded from C(<id>.jsonl).
    type: dict
    required: true
  sha256:
    description:
      - The SHA-256 of the record's file, printed on the page so that the two can be matched.
      - Without it, the digest is computed from the record as this collection writes it to disk.
    type: str
    default: ""
seealso:
  - plugin: hms.postgres.report_text
    plugin_type: filter
"""

EXAMPLES = r"""
- name: Write the report of an operation beside its record
  ansible.builtin.copy:
    content: "{{ lookup('ansible.builtin.file', records ~ '/' ~ id ~ '.json') | from_json | hms.postgres.report_html }}"
    dest: "{{ records }}/{{ id }}.html"
    mode: "0600"
  delegate_to: localhost
  vars:
    records: /var/lib/hms-postgres-demo/records
    id: 20261122T154500Z-failover-3fa9
"""

RETURN = r"""
_value:
  description: The page.
  type: str
"""

import typing as t
from collections.abc import Callable, Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.plugin_utils._report.html import render_html


def report_html(record: t.Any, sha256: str = "") -> str:
    """The record as a page."""
    if not isinstance(record, Mapping):
        raise AnsibleFilterError(
            f"report_html takes the record of an operation, a dictionary, and was given {type(record).__name__}. "
            "Read the record's file with the file lookup and from_json."
        )
    return render_html(record, sha256=sha256)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, Callable[..., str]]:
        """The filters of this file."""
        return {"report_html": report_html}
