#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore_cleanup
short_description: Drops the old databases that restores have put aside, when their days are over
version_added: 0.1.0
description:
  - A restore keeps the database that it replaced under a dated name, such as
    C(hospital_before_20261122T154500Z), for the way back. This module drops those that are old enough.
  - Only databases of such a name are ever dropped. One that somebody is connected to stays unless
    O(with_sessions) is set. One to which replication slots or subscriptions belong stays always.
options:
  config_directory:
    description:
      - The folder on the managed host in which the role hms.postgres.backup keeps C(backup.json), which tells of
        cluster, environment and server. Options given here come first.
      - One of this and O(cluster) is needed.
    type: path
  cluster:
    description: The cluster's name, where O(config_directory) isn't given.
    type: str
  environment:
    description: The environment's name, where O(config_directory) isn't given.
    type: str
  database:
    description: The live database, of which the others are the old ones. It is never dropped.
    type: str
    required: true
  older_than_days:
    description: How old they must be, by their names and the server's clock.
    type: float
    default: 7.0
  names:
    description: Exactly these are dropped, whatever their age.
    type: list
    elements: str
    default: []
  with_sessions:
    description: Whether those that somebody is connected to are dropped as well, and the sessions ended.
    type: bool
    default: false
  confirm:
    description:
      - The live database's name. Needed in V(production); checked wherever it is given.
    type: str
  state_dir:
    description:
      - The folder for records on the managed host; by default C(/var/lib/hms-postgres/), cluster.
    type: path
  login_host:
    description: The server's host name or address, or the folder of its socket. By default that of C(backup.json).
    type: str
  login_port:
    description: The server's port.
    type: int
  login_user:
    description: A superuser, or the owner of what is dropped.
    type: str
  os_user:
    description:
      - The operating system's user that connects, by default V(postgres).
        An empty string means the one that runs the module.
    type: str
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - The diff holds the old databases before and after.
  idempotent:
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: partial
    details:
      - With O(names) the second invocation refuses, because they are gone.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - psycopg >= 3.1 (Debian's package python3-psycopg)
seealso:
  - module: hms.postgres.pg_restore_safe
author:
  - the hms.postgres authors (@hms-postgres)
extends_documentation_fragment:
  - hms.postgres.connection
"""

EXAMPLES = r"""
- name: What would go
  hms.postgres.pg_restore_cleanup:
    config_directory: /etc/hms-postgres/hospital
    database: hospital
  check_mode: true
  diff: true

- name: Drop what was put aside more than two weeks ago
  hms.postgres.pg_restore_cleanup:
    config_directory: /etc/hms-postgres/hospital
    database: hospital
    older_than_days: 14
    confirm: hospital
"""

RETURN = r"""
plan:
  description: Every database that was put aside, and what becomes of it.
  returned: success
  type: list
  elements: dict
  sample:
    - name: hospital_before_20261122T154500Z
      since: '2026-11-22T15:45:00.000Z'
      bytes: 1736000000
      sessions: 0
      drop: true
      why: it is 8.2 days old
record:
  description: The record's file on the managed host.
  returned: success, null where nothing was dropped
  type: str
  sample: /var/lib/hms-postgres/hospital/records/20261130T020000Z-cleanup-3fa9.json
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: not_confirmed
phase:
  description: The step that failed.
  returned: failure
  type: str
  sample: plan
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Look at the plan (--check), then run again with confirm=hospital.
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._backup import policy as policies
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._restore.arguments import CLEANUP
from ansible_collections.hms.postgres.plugins.module_utils._restore.cleanup import cleanup, wish_from


def work(params: dict[str, t.Any], *, check_mode: bool) -> _module.Result:
    """The host's own file and the arguments make the wish."""
    base: t.Mapping[str, t.Any] = {}
    if params.get("config_directory"):
        base = policies.load(params["config_directory"]).base
    return cleanup(wish_from(params, base=base), check_mode=check_mode, clock=SystemClock())


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec=CLEANUP, required_one_of=[("config_directory", "cluster")], supports_check_mode=True
    )
    _module.run(module, lambda: work(module.params, check_mode=module.check_mode))


if __name__ == "__main__":
    main()
