#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_instance
short_description: Creates, takes over and starts a PostgreSQL instance the Debian way
version_added: 0.1.0
description:
  - Makes sure that an instance (what Debian calls a cluster) exists with the given data directory and port,
    and that it runs with the configuration on disk.
  - A new instance is created by C(pg_createcluster) with data checksums. A data directory that already holds a cluster,
    a clone of the primary for instance, is taken over as it is - C(initdb) never runs on it, and it is never in danger.
  - A running server is reloaded when one of its configuration files is newer than what it has loaded.
    It is restarted only where O(restart) allows it. Otherwise the settings that wait are returned and warned about.
  - A server whose program was replaced on disk by a minor upgrade is noticed and warned about.
    It is never restarted for that.
  - What lies in the data directory and isn't ours is never touched.
options:
  version:
    description: The major version of PostgreSQL.
    type: int
    required: true
  name:
    description:
      - The instance's name. Letters, digits, dot and underscore.
    type: str
    default: main
  port:
    description: The TCP port, which is also part of the socket's name.
    type: int
    default: 5432
  data_directory:
    description:
      - Where the data is or will be.
      - Debian's place, C(/var/lib/postgresql/VERSION/NAME), when not given.
    type: path
  socket_directory:
    description: Where the server puts its socket. Used when the instance is created or taken over.
    type: path
    default: /var/run/postgresql
  os_user:
    description: The operating system's user who owns the data and runs the server.
    type: str
    default: postgres
  encoding:
    description: The encoding of a new instance.
    type: str
    default: UTF8
  locale:
    description: The locale of a new instance.
    type: str
    default: C.UTF-8
  checksums:
    description:
      - Whether a new instance gets data checksums.
      - An existing one without them is warned about.
    type: bool
    default: true
  start_conf:
    description:
      - What a new instance's C(start.conf) says about starting at boot.
      - That of an existing instance is never changed, because V(disabled) may be a fence.
    type: str
    choices: [auto, manual, disabled]
    default: auto
  state:
    description:
      - V(present) makes sure that the instance exists; whether it runs is left as it is.
      - V(started) also starts it, or reloads it where its configuration changed.
    type: str
    choices: [present, started]
    default: present
  initialise:
    description:
      - Whether a new, empty cluster may be created when there is no data.
      - Set this to V(false) on a host that is to be a standby. Its data is cloned, then taken over.
    type: bool
    default: true
  restart:
    description:
      - Whether a running server may be restarted to use settings that need it. Looked at with O(state=started) only.
    type: str
    choices: [never, allowed]
    default: never
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Where PostgreSQL isn't installed yet, the plan is made without its programs.
      - Where O(initialise) is V(false) and there is no data yet, it is taken as coming.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
seealso:
  - module: hms.postgres.pg_instance_info
  - module: hms.postgres.pg_objects
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Create Debian's usual instance, without starting it
  hms.postgres.pg_instance:
    version: 15

- name: Take a cloned data directory over as an instance
  hms.postgres.pg_instance:
    version: 15
    name: hospital
    port: 5433
    data_directory: /srv/postgresql/hospital
    initialise: false

- name: Run it with the configuration on disk, and restart it if a setting needs that
  hms.postgres.pg_instance:
    version: 15
    state: started
    restart: allowed
"""

RETURN = r"""
instance:
  description: The instance as it is at the end, or as it was found in check mode. See M(hms.postgres.pg_instance_info).
  returned: success
  type: dict
  sample:
    version: 15
    instance: main
    exists: true
    running: true
    role: primary
    port: 5432
    data_directory: /var/lib/postgresql/15/main
    config_directory: /etc/postgresql/15/main
    checksums: true
    server_version: 15.18 (Debian 15.18-0+deb12u1)
    binary_replaced: false
    pending_restart: []
actions:
  description: What was done, or would be done in check mode, and why.
  returned: success
  type: list
  elements: dict
  sample:
    - id: reload
      what: make 15/main read its configuration again
      why: /etc/postgresql/15/main/conf.d/50-hms.conf is newer than what the server has loaded
created:
  description: Whether a new, empty cluster was created.
  returned: success
  type: bool
  sample: false
adopted:
  description: Whether a data directory that held a cluster was taken over.
  returned: success
  type: bool
  sample: false
started:
  description: Whether the server was started.
  returned: success
  type: bool
  sample: false
reloaded:
  description: Whether the server read its configuration again.
  returned: success
  type: bool
  sample: true
restarted:
  description: Whether the server was restarted.
  returned: success
  type: bool
  sample: false
pending_restart:
  description: Settings whose new value waits for a restart, with the value in use and the one configured.
  returned: success
  type: list
  elements: dict
  sample:
    - name: shared_buffers
      running: 128MB
      configured: 4GB
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
  sample: Choose another port (variable postgresql_port), or end that process.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance import instance_manager
from ansible_collections.hms.postgres.plugins.module_utils._provision.instance_model import InstanceWish


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "version": {"type": "int", "required": True},
            "name": {"type": "str", "default": "main"},
            "port": {"type": "int", "default": 5432},
            "data_directory": {"type": "path"},
            "socket_directory": {"type": "path", "default": "/var/run/postgresql"},
            "os_user": {"type": "str", "default": "postgres"},
            "encoding": {"type": "str", "default": "UTF8"},
            "locale": {"type": "str", "default": "C.UTF-8"},
            "checksums": {"type": "bool", "default": True},
            "start_conf": {"type": "str", "choices": ["auto", "manual", "disabled"], "default": "auto"},
            "state": {"type": "str", "choices": ["present", "started"], "default": "present"},
            "initialise": {"type": "bool", "default": True},
            "restart": {"type": "str", "choices": ["never", "allowed"], "default": "never"},
        },
        supports_check_mode=True,
    )
    wish = InstanceWish.from_params(module.params)
    _module.run(module, lambda: instance_manager(os_user=wish.os_user).ensure(wish, check_mode=module.check_mode))


if __name__ == "__main__":
    main()
