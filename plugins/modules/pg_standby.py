#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_standby
short_description: Makes a database host a standby that streams from its upstream
version_added: 0.1.0
description:
  - Copies the upstream by C(pg_basebackup) where this host has no data, or restores a backup of its cluster by
    C(pgbackrest), and points an existing standby at the upstream that it is to follow. The upstream may be a
    standby itself (cascading).
  - The copy is made in a directory beside the data directory and renamed into its place when it is complete,
    synced to disk and set up as a standby. A copy that is killed never looks like a data directory;
    the next run removes what it left, or goes on with it where that was a restore.
  - A physical slot for this host is created on the upstream before the copy starts, over the network,
    as the role that may only replicate.
  - Existing data is never overwritten. A former primary, data of another cluster and a standby whose WAL is gone
    are refused with what to do, unless O(allow_reclone=true); then the old data directory is kept
    under a dated name.
  - With O(pgbackrest), a standby whose WAL is gone from its upstream is in order where the archive has that WAL.
    Its invalidated slot is made anew, it catches up from the archive and then streams. Where the archive lacks WAL,
    that is said before anything is touched.
  - Reads who this host is from C(member.json), which the role P(hms.postgres.replication#role) writes.
  - Does not start the instance. M(hms.postgres.pg_instance) takes a fresh copy over and starts it.
options:
  config_directory:
    description: The directory with this host's C(member.json).
    type: path
    required: true
  upstream:
    description: The member to follow, by its name.
    type: str
    required: true
  state:
    description:
      - V(present) makes sure that there is a standby's data here, and that it points at O(upstream).
      - V(streaming) also waits until it streams from O(upstream). The instance must have been started.
    type: str
    choices: [present, streaming]
    default: present
  allow_reclone:
    description:
      - Whether data that cannot go on as a standby may be set aside and replaced by a new copy.
      - A standby that is in order is never copied again.
    type: bool
    default: false
  clone_method:
    description:
      - What makes a copy.
      - V(basebackup) copies the upstream itself, which costs it the reading of all its data.
      - V(pgbackrest) restores the newest backup from which WAL leads to the upstream without a break; all that is
        checked before anything is touched. The upstream has little to do with it.
    type: str
    choices: [basebackup, pgbackrest]
    default: basebackup
  clone_fallback:
    description:
      - Whether the upstream is copied by C(pg_basebackup) where O(clone_method=pgbackrest) finds no backup that will
        do, or where the restore fails. It is warned about.
    type: bool
    default: false
  reuse_data:
    description:
      - Whether data that may be replaced (O(allow_reclone=true)) is used up by O(clone_method=pgbackrest) instead of
        being kept, so that only what differs is fetched, and no room is needed for a second copy. B(What was only in
        the old data is lost then.)
      - Data of another cluster or version is kept all the same.
    type: bool
    default: false
  pgbackrest:
    description:
      - Where the cluster's backups and its archived WAL are. Needed by O(clone_method=pgbackrest), which takes the
        defaults where this is left out, and by a standby that is to catch up from the archive.
      - The repository stands in pgBackRest's own configuration on this host.
    type: dict
    suboptions:
      config:
        description: The configuration file; by default C(/etc/hms-postgres/), cluster, C(/pgbackrest.conf).
        type: path
      stanza:
        description: The stanza's name; by default the cluster's.
        type: str
      os_user:
        description: The operating system's user that pgBackRest runs as; by default the instance's.
        type: str
      repo:
        description: The number of the repository that a backup is taken from.
        type: int
  clone_timeout:
    description: Seconds that the copy may take.
    type: int
    default: 21600
  stream_timeout:
    description:
      - Seconds to wait for O(state=streaming).
      - With O(pgbackrest), a standby that gets on with WAL from the archive is given as much again, up to
        O(clone_timeout).
    type: int
    default: 60
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - On a host that is not set up yet, or whose upstream doesn't run yet, it says that it would copy.
      - With O(clone_method=pgbackrest) the repository is read, and the backup is named with its size.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
seealso:
  - module: hms.postgres.pg_backup
  - module: hms.postgres.pg_instance
  - module: hms.postgres.pg_primary
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Copy the primary, if there is no standby here yet
  hms.postgres.pg_standby:
    config_directory: /etc/hms-postgres/hospital
    upstream: db1

- name: Take the copy over as an instance and start it
  hms.postgres.pg_instance:
    version: 15
    initialise: false
    state: started

- name: Wait until it streams
  hms.postgres.pg_standby:
    config_directory: /etc/hms-postgres/hospital
    upstream: db1
    state: streaming

- name: Restore the newest backup instead, and go on with WAL from the archive
  hms.postgres.pg_standby:
    config_directory: /etc/hms-postgres/hospital
    upstream: db1
    clone_method: pgbackrest
    pgbackrest:
      config: /etc/hms-postgres/hospital/pgbackrest.conf
      stanza: hospital

# The old data directory is kept as <data directory>.before-reclone-<time>.
- name: Replace a standby whose WAL is gone from its upstream
  hms.postgres.pg_standby:
    config_directory: /etc/hms-postgres/hospital
    upstream: db1
    allow_reclone: true
"""

RETURN = r"""
plan:
  description: What was done, or would be done in check mode, and why.
  returned: success
  type: list
  elements: str
  sample:
    - create the slot db2 on db1 (the copy must find all WAL after its start)
    - copy db1 into /var/lib/postgresql/15/main by pg_basebackup (0.03 GB) (there is no instance here)
cloned:
  description: Whether a copy was made.
  returned: success
  type: bool
  sample: true
upstream:
  description: The member that is followed.
  returned: when the upstream answered
  type: str
  sample: db1
slot:
  description: The slot of this host at its upstream.
  returned: when the upstream answered
  type: str
  sample: db2
kept_directory:
  description: Where the old data directory was kept, empty when none had to be.
  returned: when the upstream answered
  type: str
  sample: ""
backup:
  description: The backup that a copy is made of, and how much of it is fetched; empty where none is.
  returned: when the upstream answered
  type: dict
  sample:
    label: 20260104-010002F
    type: full
    ended: "2026-01-04T01:09:41.000Z"
    bytes: 53687091200
    fetch_bytes: 9663676416
receiver:
  description: What the WAL receiver says of its connection.
  returned: when O(state=streaming), not in check mode
  type: dict
  sample:
    status: streaming
    sender_host: 10.0.0.1
    sender_port: 5432
    slot_name: db2
    timeline: 1
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: was_primary
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Run playbooks/rejoin.yml -e host=db1
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._artifact.arguments import PGBACKREST
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect
from ansible_collections.hms.postgres.plugins.module_utils._provision.standby import Request, Standby


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "config_directory": {"type": "path", "required": True},
            "upstream": {"type": "str", "required": True},
            "state": {"type": "str", "choices": ["present", "streaming"], "default": "present"},
            "allow_reclone": {"type": "bool", "default": False},
            "reuse_data": {"type": "bool", "default": False},
            "clone_method": {"type": "str", "choices": ["basebackup", "pgbackrest"], "default": "basebackup"},
            "clone_fallback": {"type": "bool", "default": False},
            **PGBACKREST,
            "clone_timeout": {"type": "int", "default": 21600},
            "stream_timeout": {"type": "int", "default": 60},
        },
        supports_check_mode=True,
    )
    standby = Standby(Request(**module.params), connect=connect, runner=SystemRunner(), clock=SystemClock())
    _module.run(module, lambda: standby.ensure(check_mode=module.check_mode))


if __name__ == "__main__":
    main()
