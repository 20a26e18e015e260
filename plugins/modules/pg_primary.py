#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_primary
short_description: Gives a primary the slots and the synchronous standbys it should have
version_added: 0.1.0
description:
  - Creates a physical replication slot for each standby that follows this primary.
  - Sets C(synchronous_standby_names) by the policy in C(member.json), with C(ALTER SYSTEM). With V(async) it is empty,
    with V(strict) and V(degrade) a commit waits for any one of the other members that may become primary.
  - It is only set while one of them streams, because every write would stop otherwise.
    Under V(degrade) this is said as a warning, under V(strict) the module fails when commits are not protected.
  - Works on the local socket as the operating system's user of the instance.
options:
  config_directory:
    description: The directory with this host's C(member.json).
    type: path
    required: true
  standbys:
    description: The members that follow this host directly, by their names.
    type: list
    elements: str
    default: []
  synchronous:
    description:
      - Whether C(synchronous_standby_names) is looked after too.
      - Set this to V(false) as long as the standbys are still being set up.
    type: bool
    default: true
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
  - module: hms.postgres.pg_standby
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: A slot for the standby that is about to be made
  hms.postgres.pg_primary:
    config_directory: /etc/hms-postgres/hospital
    standbys: [db2]
    synchronous: false

- name: Commits wait for it from now on, if the policy says so
  hms.postgres.pg_primary:
    config_directory: /etc/hms-postgres/hospital
    standbys: [db2]
"""

RETURN = r"""
plan:
  description: What was done, or would be done in check mode.
  returned: success
  type: list
  elements: str
  sample:
    - create the slot db2
slots:
  description: The names of all slots afterwards.
  returned: when the host is set up
  type: list
  elements: str
  sample: [db2]
synchronous_standby_names:
  description: Its value afterwards.
  returned: when the host is set up
  type: str
  sample: ANY 1 ("db2")
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: no_standby_streams
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Bring a standby back, then run this again.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect
from ansible_collections.hms.postgres.plugins.module_utils._provision.primary import Primary


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "config_directory": {"type": "path", "required": True},
            "standbys": {"type": "list", "elements": "str", "default": []},
            "synchronous": {"type": "bool", "default": True},
        },
        supports_check_mode=True,
    )
    primary = Primary(module.params["config_directory"], connect=connect, runner=SystemRunner())
    _module.run(
        module,
        lambda: primary.ensure(
            standbys=module.params["standbys"],
            synchronous=module.params["synchronous"],
            check_mode=module.check_mode,
        ),
    )


if __name__ == "__main__":
    main()
