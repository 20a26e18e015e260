# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter `hms.postgres.backup_text`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: backup_text
short_description: Says in a few lines what a backup came to
version_added: 0.1.0
author:
  - the hms.postgres authors (@hms-postgres)
description:
  - Takes what M(hms.postgres.pg_backup) returned, in check mode too, and returns lines for people.
positional: host
options:
  _input:
    description: The module's result.
    type: dict
    required: true
  host:
    description: The host that made it.
    type: str
    required: true
"""

EXAMPLES = r"""
- name: Say what came of it
  ansible.builtin.debug:
    msg: "{{ hms_backup | hms.postgres.backup_text(inventory_hostname) }}"
"""

RETURN = r"""
_value:
  description: The lines.
  type: list
  elements: str
"""

import typing as t
from collections.abc import Mapping

from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.plugin_utils._report.backup_done import backup_lines


def backup_text(done: t.Any, host: str) -> list[str]:
    """The lines."""
    if not isinstance(done, Mapping):
        raise AnsibleFilterError(f"backup_text takes the result of pg_backup and was given {type(done).__name__}.")
    return backup_lines(done, str(host))


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"backup_text": backup_text}
