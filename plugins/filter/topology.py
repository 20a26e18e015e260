# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: topology
short_description: Decides from the cluster's truth who is the primary and who follows whom
version_added: 0.1.0
description:
  - Takes what every database host said of itself and decides who leads. The inventory's word counts only
    for a cluster that has no data anywhere.
  - Does not guess. Two writable instances, data without a writable instance and hosts that may be hiding the primary
    come back as a problem, with what to do.
options:
  _input:
    description: The members, as the filter P(hms.postgres.members#filter) makes them.
    type: list
    elements: dict
    required: true
  hostvars:
    description:
      - Ansible's C(hostvars). Each host that answered has C(replication_found) in it, a dictionary with C(instance)
        (see M(hms.postgres.pg_instance_info)) and C(fence) (the content of C(fence.json), empty when there is none).
    type: dict
    required: true
  initial_primary:
    description: The member that leads a new cluster.
    type: str
    default: ""
positional: hostvars, initial_primary
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Decide
  ansible.builtin.set_fact:
    replication_topology: "{{ replication_members | hms.postgres.topology(hostvars, 'db1') }}"
"""

RETURN = r"""
_value:
  description:
    - C(problem) is empty, or says why nothing could be decided and what to do; then C(reason) is a word for it
      and nothing else can be relied on.
    - Otherwise C(primary) is the member that leads, C(virgin) whether there is no data anywhere,
      C(start_primary) whether the primary has to be started, C(standbys) a list with C(name), C(upstream)
      and C(depth) (1 follows the primary), C(fenced) and C(unreachable) who is left alone,
      and C(notes) what the operator should know.
  type: dict
  sample:
    problem: ""
    primary: db1
    virgin: false
    start_primary: false
    standbys:
      - name: db2
        upstream: db1
        depth: 1
    fenced: []
    unreachable: []
    notes: []
"""

import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._provision.topology import decide_plainly

FACT = "replication_found"


def topology(
    members: t.Sequence[t.Mapping[str, t.Any]],
    hostvars: t.Mapping[str, t.Mapping[str, t.Any]],
    initial_primary: str = "",
) -> dict[str, t.Any]:
    """The decision as plain data."""
    answers = {}
    for member in members:
        name = str(member["name"])
        found = hostvars[name].get(FACT) if name in hostvars else None
        if found:
            answers[name] = found
    return decide_plainly(members, answers, initial_primary=initial_primary)


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"topology": topology}
