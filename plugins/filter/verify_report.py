# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter `hms.postgres.verify_report`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: verify_report
short_description: Says in a few lines what the verification of backups on several hosts came to
version_added: 0.1.0
author:
  - the hms.postgres authors (@hms-postgres)
description:
  - Takes the names of hosts and, from C(hostvars), what each of them registered from M(hms.postgres.pg_backup_verify).
positional: hostvars
options:
  _input:
    description: Names of hosts, usually a group.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  variable:
    description: The variable in which each host's result was registered.
    type: str
    default: hms_backup_verify
"""

EXAMPLES = r"""
- name: Say what came of it
  ansible.builtin.debug:
    msg: "{{ (groups['database'] | hms.postgres.verify_report(hostvars)).lines }}"
"""

RETURN = r"""
_value:
  description: The lines for people under C(lines), and under C(count) how many backups were verified, or would be.
  type: dict
  sample:
    lines: ['db1: 20261122T020000Z-backup-3fa9 in /srv/backups was read to its end (2.10 s).']
    count: 1
"""

import typing as t
from collections.abc import Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.plugin_utils._report.backup_done import planned, verify_lines


def verify_report(
    names: Sequence[str], hostvars: Mapping[str, Mapping[str, t.Any]], variable: str = "hms_backup_verify"
) -> dict[str, t.Any]:
    """The lines, and how many backups they are about."""
    answers: list[tuple[str, Mapping[str, t.Any]]] = []
    for name in names:
        try:
            answer = hostvars[name].get(variable)
        except KeyError as error:
            raise AnsibleFilterError(f"{name} is no host of this inventory.") from error
        if isinstance(answer, Mapping):
            answers.append((str(name), answer))
    return {"lines": verify_lines(answers), "count": sum(len(planned(answer)) for _name, answer in answers)}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"verify_report": verify_report}
