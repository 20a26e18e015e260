#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_instance_info
short_description: Tells what a PostgreSQL instance of this host is and does
version_added: 0.1.0
description:
  - Looks at one instance's files, at its process and, where it runs, at what the server itself says.
  - Works on a host on which PostgreSQL isn't installed.
options:
  version:
    description: The major version of PostgreSQL.
    type: int
    required: true
  name:
    description: The instance's name.
    type: str
    default: main
  data_directory:
    description:
      - Where the data is looked for when no such instance is configured.
      - Debian's place, C(/var/lib/postgresql/VERSION/NAME), when not given.
    type: path
  os_user:
    description: The operating system's user who owns the data and runs the server.
    type: str
    default: postgres
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - This module changes nothing.
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
  - module: hms.postgres.pg_instance
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Look at Debian's usual instance
  hms.postgres.pg_instance_info:
    version: 15
  register: found

- name: Say whether it is a standby
  ansible.builtin.debug:
    msg: "{{ found.instance.role }}"
"""

RETURN = r"""
instance:
  description: What was found.
  returned: success
  type: dict
  contains:
    version:
      description: The major version asked for.
      returned: success
      type: int
      sample: 15
    instance:
      description: The name asked for.
      returned: success
      type: str
      sample: main
    installed_version:
      description: The version of the installed server program, null where it isn't installed.
      returned: success
      type: str
      sample: 15.18 (Debian 15.18-0+deb12u1)
    exists:
      description: Whether Debian's tools know the instance.
      returned: success
      type: bool
      sample: true
    data_present:
      description: Whether the data directory holds a cluster.
      returned: success
      type: bool
      sample: true
    running:
      description: Whether the server runs.
      returned: success
      type: bool
      sample: true
    role:
      description:
        - V(primary) or V(standby), by what the server says. For a stopped server, what it would start as.
          V(none) where there is no data.
      returned: success
      type: str
      sample: standby
    pid:
      description: The server's process, null when it is down.
      returned: success
      type: int
      sample: 4711
    port:
      description: The configured port, null where there is no such instance.
      returned: success
      type: int
      sample: 5432
    data_directory:
      description: Where the data is.
      returned: success
      type: str
      sample: /var/lib/postgresql/15/main
    config_directory:
      description: Where the configuration is.
      returned: success
      type: str
      sample: /etc/postgresql/15/main
    bin_directory:
      description: Where this version's programs are.
      returned: success
      type: str
      sample: /usr/lib/postgresql/15/bin
    socket_directory:
      description: Where the server puts its socket.
      returned: success
      type: str
      sample: /var/run/postgresql
    start_conf:
      description: What C(start.conf) says about starting at boot, null where there is no such instance.
      returned: success
      type: str
      sample: auto
    system_identifier:
      description: The cluster's identity, the same on all its copies. Null where it can't be read.
      returned: success
      type: str
      sample: "7391573432123456789"
    timeline:
      description: The timeline of the last checkpoint. Null where it can't be read.
      returned: success
      type: int
      sample: 1
    control_state:
      description: The state in the control file. Null where it can't be read.
      returned: success
      type: str
      sample: in production
    checksums:
      description: Whether the cluster has data checksums. Null where it can't be read.
      returned: success
      type: bool
      sample: true
    server_version:
      description: The version of the running server, null when it is down.
      returned: success
      type: str
      sample: 15.18 (Debian 15.18-0+deb12u1)
    encoding:
      description: The encoding of new databases, null when the server is down.
      returned: success
      type: str
      sample: UTF8
    locale:
      description: The locale of new databases, null when the server is down.
      returned: success
      type: str
      sample: C.UTF-8
    binary_replaced:
      description: Whether the running server is older than the program on disk.
      returned: success
      type: bool
      sample: false
    config_errors:
      description: Lines of the configuration files that the server doesn't take, each with file, line and message.
      returned: success
      type: list
      elements: dict
      sample: []
    pending_restart:
      description: Settings whose new value waits for a restart.
      returned: success
      type: list
      elements: dict
      sample: []
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance import instance_manager
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance_model import InstanceWish


def main() -> None:
    """Read the arguments, look, report."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "int", "required": True},
            "name": {"type": "str", "default": "main"},
            "data_directory": {"type": "path"},
            "os_user": {"type": "str", "default": "postgres"},
        },
        supports_check_mode=True,
    )
    wish = InstanceWish.from_params(module.params)
    _module.run(module, lambda: instance_manager(os_user=wish.os_user).info(wish))


if __name__ == "__main__":
    main()
