# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: members
short_description: The database hosts of an inventory as the list that roles take
version_added: 0.1.0
description:
  - Turns the names of database hosts into the members of a cluster, with address, port, priority and upstream,
    from the variables of each host.
  - Roles never name an inventory group. A playbook does, and passes what this filter makes of it.
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
positional: hostvars
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Pass the members to a role
  ansible.builtin.include_role:
    name: hms.postgres.replication
    tasks_from: topology
  vars:
    replication_members: "{{ groups['database'] | hms.postgres.members(hostvars) }}"
"""

RETURN = r"""
_value:
  description:
    - One dictionary for each host, with C(name), C(address) (C(hms_address), or C(ansible_host), or the name), C(port)
      (C(postgresql_port)), C(priority) (C(replication_priority)), C(may_be_primary) (C(replication_may_be_primary)) and
      C(upstream) (C(replication_upstream)).
  type: list
  elements: dict
  sample:
    - name: db1
      address: 10.0.0.1
      port: 5432
      priority: 100
      may_be_primary: true
      upstream: ""
"""

import typing as t

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean


def members(names: t.Sequence[str], hostvars: t.Mapping[str, t.Mapping[str, t.Any]]) -> list[dict[str, t.Any]]:
    """One dictionary for each name."""
    found = []
    for name in names:
        try:
            variables = hostvars[name]
        except KeyError as error:
            raise AnsibleFilterError(f"{name} is no host of this inventory.") from error
        address = variables.get("hms_address") or variables.get("ansible_host") or name
        found.append(
            {
                "name": str(name),
                "address": str(address),
                "port": int(variables.get("postgresql_port") or 5432),
                "priority": int(variables.get("replication_priority", 100)),
                "may_be_primary": bool(boolean(variables.get("replication_may_be_primary", True))),
                "upstream": str(variables.get("replication_upstream") or ""),
            }
        )
    return found


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"members": members}
