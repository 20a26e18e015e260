#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: agent_line
short_description: Turns a host's connection into a line for its agent
version_added: 0.1.0
description:
  - Computes the program that Ansible's own connection would start on the controller to reach this host, with its become
    method, so that the operations can open a lasting line to it. Nothing is run on the host.
  - Register the result as C(hms_agent_line).
options:
  config_directory:
    description:
      - The directory on the host that holds C(member.json), written by playbooks/site.yml.
      - Required for a host with a role in the cluster.
    type: path
  state_directory:
    description:
      - For a host that has no role in the cluster and runs services that M(hms.postgres.pg_database_swap) stops and
        starts. Its agent keeps here what it stopped, and what it did.
      - Give either this or O(config_directory).
    type: path
attributes:
  action:
    description: >-
      Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
    support: none
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: N/A
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
notes:
  - The connections V(ssh) and V(local) are supported. With ssh, log in by key.
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Turn this host's connection into a line for its agent
  hms.postgres.agent_line:
    config_directory: /etc/hms-postgres/hospital
  become: true
  register: hms_agent_line
"""

RETURN = r"""
line:
  description: The argv on the controller, and the prompt that sudo may show.
  returned: success
  type: dict
  sample: {argv: [/bin/sh, -c, '...'], prompt: ''}
"""
