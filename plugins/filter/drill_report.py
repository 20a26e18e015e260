# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter `hms.postgres.drill_report`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: drill_report
short_description: Renders what a restore drill came to as a short table
version_added: 0.1.0
author:
  - the hms.postgres authors (@hms-postgres)
description:
  - Takes what M(hms.postgres.pg_restore_drill) returned, of a drill that failed as well, and gives the lines of a
    table. In check mode the table says what would be restored.
options:
  _input:
    description: What was registered from the module.
    type: dict
    required: true
"""

EXAMPLES = r"""
- name: Show what came back
  ansible.builtin.debug:
    msg: "{{ hms_restore_drill | hms.postgres.drill_report }}"
"""

RETURN = r"""
_value:
  description: The lines of the table.
  type: list
  elements: str
  sample: [DATABASE  BACKUP                         CAME BACK, hospital  20261122T020000Z-backup-3fa9  yes]
"""

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.plugin_utils._report.drill import drill_lines


def drill_report(answer: t.Any) -> list[str]:
    """The lines."""
    if not isinstance(answer, Mapping):
        raise AnsibleFilterError("drill_report takes what hms.postgres.pg_restore_drill returned.")
    return drill_lines(answer)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"drill_report": drill_report}
