# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter `hms.postgres.backups_report`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: backups_report
short_description: Renders what each host knows of its backups as one screen of text
version_added: 0.1.0
author:
  - the hms.postgres authors (@hms-postgres)
description:
  - Takes the names of hosts and, from C(hostvars), what each of them registered from M(hms.postgres.pg_backup_info).
    Returns the screen, and what the policy is not satisfied with.
  - A job is satisfied when any host sees a verified backup that is young enough, for each may have its own folder.
  - A host that failed or can't be reached is told on the screen.
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
    default: hms_backups
  shown:
    description: How many backups of each database are shown, the newest first.
    type: int
    default: 20
"""

EXAMPLES = r"""
- name: Show all backups of the cluster
  ansible.builtin.debug:
    msg: "{{ (groups['database'] | hms.postgres.backups_report(hostvars)).screen }}"
"""

RETURN = r"""
_value:
  description:
    - The lines of the screen under C(screen), and under C(failures) one sentence for each job that isn't satisfied.
  type: dict
  sample:
    screen: [Backups of hospital (production)]
    failures: []
"""

import typing as t
from collections.abc import Mapping, Sequence

from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.plugin_utils._report.backups import failures, render_backups


def backups_report(
    names: Sequence[str], hostvars: Mapping[str, Mapping[str, t.Any]], variable: str = "hms_backups", shown: int = 20
) -> dict[str, list[str]]:
    """The screen and the failures."""
    seen: list[tuple[str, Mapping[str, t.Any]]] = []
    for name in names:
        try:
            answer = hostvars[name].get(variable)
        except KeyError as error:
            raise AnsibleFilterError(f"{name} is no host of this inventory.") from error
        seen.append((str(name), answer if isinstance(answer, Mapping) else {}))
    return {"screen": render_backups(seen, shown=int(shown)).splitlines(), "failures": failures(seen)}


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"backups_report": backups_report}
