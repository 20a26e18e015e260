#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbackrest_stanza
short_description: Makes a cluster's place in its pgBackRest repositories, and proves that WAL arrives there
version_added: 0.1.0
description:
  - Makes the stanza in every repository of the configuration that has none.
  - On a primary it then switches WAL and waits until the segment is in every repository. That is repeated
    at each run, and is no change.
  - On a standby the stanza is made from the control file, so that a repository of the host's own takes WAL
    from the first moment after a failover. Where hosts share a repository, run it on the primary first.
  - pgBackRest's C(info) ends with 0 even when it can't read the repository, for example with a wrong passphrase.
    This module judges by what it says.
options:
  config:
    description: pgBackRest's configuration file. It holds the repository's secrets, so that no command line does.
    type: path
    required: true
  stanza:
    description: What the cluster is called in the repository.
    type: str
    required: true
  repositories:
    description: The numbers of the repositories in O(config).
    type: list
    elements: int
    default: [1]
  os_user:
    description: The owner of the data directory, as whom pgBackRest runs.
    type: str
    default: postgres
  port:
    description: The instance's port.
    type: int
    default: 5432
  socket_directory:
    description: The directory of the instance's socket.
    type: path
    default: /var/run/postgresql
  check:
    description: Whether to prove on a primary that WAL arrives.
    type: bool
    default: true
  wait_seconds:
    description: Seconds to wait for the WAL, and for another pgBackRest that holds the lock.
    type: int
    default: 60
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Whether WAL arrives isn't tried in check mode.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Make the stanza and see that WAL arrives
  hms.postgres.pgbackrest_stanza:
    config: /etc/hms-postgres/hospital/pgbackrest.conf
    stanza: hospital
"""

RETURN = r"""
plan:
  description: What was done, or would be done in check mode, and why.
  returned: success
  type: list
  elements: str
  sample:
    - "create: repo1 has no stanza"
    - "check: this is the primary, whose WAL must arrive"
created:
  description: The repositories in which the stanza was made.
  returned: success
  type: list
  elements: int
  sample: [1]
checked:
  description: Whether it was proven that WAL arrives in every repository.
  returned: success
  type: bool
  sample: true
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: repository_unreadable
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: See that the store is reached and that repo-cipher-pass is the one it was made with.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._backup.pgbackrest_stanza import Order, work
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "config": {"type": "path", "required": True},
            "stanza": {"type": "str", "required": True},
            "repositories": {"type": "list", "elements": "int", "default": [1]},
            "os_user": {"type": "str", "default": "postgres"},
            "port": {"type": "int", "default": 5432},
            "socket_directory": {"type": "path", "default": "/var/run/postgresql"},
            "check": {"type": "bool", "default": True},
            "wait_seconds": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    order = Order(**module.params)
    _module.run(
        module,
        lambda: work(order, check_mode=module.check_mode, connect=connect, runner=SystemRunner(), clock=SystemClock()),
    )


if __name__ == "__main__":
    main()
