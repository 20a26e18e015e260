#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_databases
short_description: Leads a host's PgBouncer processes to the cluster's primary
version_added: 0.1.0
description:
  - Writes the databases file that all PgBouncer processes of this host include, and makes each running process read it.
  - The file has an entry for each database, leading to the primary, and an entry for each member by which
    the login path to it can be tried beforehand.
  - Before clients are led to another member than before, that member is asked over the network whether it takes writes.
    A standby, and a member that cannot be asked, are refused.
  - Processes whose clients are held by a switchover or failover are left alone.
  - Reads who this host is from C(member.json), which the role P(hms.postgres.pgbouncer#role) writes.
options:
  config_directory:
    description: The directory with this host's C(member.json).
    type: path
    required: true
  primary:
    description:
      - The member that is the primary now, by the cluster's own word and not by the inventory.
    type: str
    required: true
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - In check mode the member isn't asked whether it takes writes.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
seealso:
  - module: hms.postgres.pgbouncer_processes
  - module: hms.postgres.pgbouncer_ping
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Lead the clients to the primary
  hms.postgres.pgbouncer_databases:
    config_directory: /etc/hms-postgres/hospital
    primary: "{{ replication_topology.primary }}"
"""

RETURN = r"""
plan:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - write the databases file for db2
    - reload process 1
primary:
  description: The member that clients are led to.
  returned: success
  type: str
  sample: db2
previous_primary:
  description: The member that the file led to before, empty when there was no file.
  returned: when the host is set up
  type: str
  sample: db1
reloaded:
  description: The processes that read the file again.
  returned: when the host is set up
  type: list
  elements: str
  sample: ["1", "2"]
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: target_is_standby
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Run playbooks/site.yml, which asks every host who the primary is.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._provision.pooler_databases import PoolerDatabases


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "config_directory": {"type": "path", "required": True},
            "primary": {"type": "str", "required": True},
        },
        supports_check_mode=True,
    )
    databases = PoolerDatabases(module.params["config_directory"])
    _module.run(module, lambda: databases.ensure(primary=module.params["primary"], check_mode=module.check_mode))


if __name__ == "__main__":
    main()
