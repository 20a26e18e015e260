#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_processes
short_description: Runs a host's PgBouncer processes with the configuration on disk
version_added: 0.1.0
description:
  - Starts each process that is down, by systemd where it runs and as a daemon otherwise.
  - Reloads a process that doesn't run with what its files say. That is measured - settings are compared with what
    its console shows, O(files) with what it was known to have read last - so a run that was killed in between
    leaves nothing forgotten.
  - A setting that only a restart can apply is warned about and returned. Clients lose their connections in a restart,
    so it is only done where O(restart) allows it.
  - Processes whose clients are held by a switchover or failover are left alone.
  - Reads which processes there are from C(member.json), which the role P(hms.postgres.pgbouncer#role) writes.
options:
  config_directory:
    description: The directory with this host's C(member.json).
    type: path
    required: true
  service:
    description:
      - The name of the systemd template unit, without C(@.service).
    type: str
    default: hms-pgbouncer
  files:
    description:
      - Files that a process reads and whose content its console doesn't show, passwords and certificates.
    type: list
    elements: path
    default: []
  state:
    description: Whether the processes are to run.
    type: str
    choices: [started, stopped]
    default: started
  restart:
    description: Whether a process may be restarted to use settings that need it, or a program that was replaced.
    type: str
    choices: [never, allowed]
    default: never
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
seealso:
  - module: hms.postgres.pgbouncer_databases
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Run all processes with what is on disk
  hms.postgres.pgbouncer_processes:
    config_directory: /etc/hms-postgres/hospital
    files:
      - /etc/hms-postgres/hospital/pgbouncer/userlist.txt

# Clients lose their connections and log in again.
- name: Use settings that need a restart
  hms.postgres.pgbouncer_processes:
    config_directory: /etc/hms-postgres/hospital
    restart: allowed
"""

RETURN = r"""
plan:
  description: What was done, or would be done in check mode, and why.
  returned: success
  type: list
  elements: str
  sample:
    - reload process 1 (/etc/hms-postgres/hospital/pgbouncer/userlist.txt changed)
processes:
  description: Each process and whether it runs afterwards.
  returned: when the host is set up
  type: dict
  sample:
    "1": running
    "2": running
pending_restart:
  description: The settings, by process, whose new value waits for a restart.
  returned: when the host is set up
  type: dict
  sample:
    "1": [listen_addr]
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: port_taken
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Choose another port (variable pgbouncer_port), or end that process.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._provision.pooler_processes import PoolerProcesses, Request


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "config_directory": {"type": "path", "required": True},
            "service": {"type": "str", "default": "hms-pgbouncer"},
            "files": {"type": "list", "elements": "path", "default": []},
            "state": {"type": "str", "choices": ["started", "stopped"], "default": "started"},
            "restart": {"type": "str", "choices": ["never", "allowed"], "default": "never"},
        },
        supports_check_mode=True,
    )
    request = Request(**{**module.params, "files": tuple(module.params["files"])})
    processes = PoolerProcesses(request, runner=SystemRunner(), clock=SystemClock())
    _module.run(module, lambda: processes.ensure(check_mode=module.check_mode))


if __name__ == "__main__":
    main()
