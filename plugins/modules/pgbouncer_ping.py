#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_ping
short_description: Tries the way that clients take, through every PgBouncer process of a host
version_added: 0.1.0
description:
  - Logs in as the monitoring role and sends a query for each database through each process, and once over TLS
    as a client from elsewhere would come.
  - Fails when a query doesn't come through, and when it ends at a standby.
options:
  config_directory:
    description: The directory with this host's C(member.json).
    type: path
    required: true
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - This module changes nothing. In check mode a host that isn't set up yet is passed over.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: N/A
    details:
      - This module changes nothing.
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
- name: See that clients can work
  hms.postgres.pgbouncer_ping:
    config_directory: /etc/hms-postgres/hospital
"""

RETURN = r"""
ways:
  description: Each way that was tried, the server it ended at and how long login and query took.
  returned: success
  type: list
  elements: dict
  sample:
    - way: process 1
      database: hospital
      server: 10.0.0.1:5432
      seconds: 0.0123
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: path_broken
state:
  description: What state the system is in.
  returned: failure
  type: str
  sample: The bouncer runs, but clients cannot work through it.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Run playbooks/site.yml, which leads the bouncers to the primary.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect
from ansible_collections.hms.postgres.plugins.module_utils._provision.pooler_ping import PoolerPing


def main() -> None:
    """Read the arguments, try the ways, report."""
    module = AnsibleModule(
        argument_spec={"config_directory": {"type": "path", "required": True}},
        supports_check_mode=True,
    )
    ping = PoolerPing(module.params["config_directory"], connect=connect, clock=SystemClock())
    _module.run(module, lambda: ping.check(check_mode=module.check_mode))


if __name__ == "__main__":
    main()
