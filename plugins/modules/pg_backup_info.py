#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_info
short_description: Tells which backups there are, how old, how big, whether verified, and to when they restore
version_added: 0.1.0
description:
  - Lists what a folder, a bucket and a pgBackRest repository hold of one cluster, in one shape for all.
  - The stores are listed page by page. Manifests that didn't change since the last listing come from one cache object
    for each database, so that ten thousand backups are listed in seconds. No artifact is downloaded.
  - What has no manifest is no backup and isn't listed. A manifest that can't be read, that belongs elsewhere, or whose
    objects are missing or of another size is told under RV(problems) and counts as no backup.
  - Holes in pgBackRest's WAL archive are looked for and told, since they end what can be recovered.
  - Where the schedule is known (O(config_directory)), each job's newest verified backup is held against its C(max_age).
options:
  config_directory:
    description:
      - The folder on the managed host in which the role hms.postgres.backup keeps C(backup.json).
        Stores, repositories and jobs are then those of the host.
      - One of this and O(cluster) is needed.
    type: path
  cluster:
    description: The cluster's name, where O(config_directory) isn't given.
    type: str
  environment:
    description: The environment's name, where O(config_directory) isn't given.
    type: str
    default: ''
  database:
    description: Only the backups of this database. By default those of all.
    type: str
  gather:
    description:
      - What to look at. V(backups) are the stores and repositories. V(server) is the host's own PostgreSQL, of which
        O(config_directory) tells where it is; whose turn a backup is depends on it.
    type: list
    elements: str
    choices: [backups, server]
    default: [backups]
  limit:
    description: Return no more than so many, the newest ones. V(0) is all.
    type: int
    default: 0
  proven_within:
    description:
      - A time, such as V(7d) or V(36h). RV(proven) then says whether a restore drill brought one of the backups back
        within it.
    type: str
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - This module changes nothing, the cache of the catalog aside. In check mode that isn't written either.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: N/A
    details:
      - This module changes nothing.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - boto3 (Debian's package python3-boto3) for O(store.s3)
seealso:
  - module: hms.postgres.pg_backup
  - module: hms.postgres.pg_backup_verify
author:
  - the hms.postgres authors (@hms-postgres)
extends_documentation_fragment:
  - hms.postgres.backup_store
  - hms.postgres.pgbackrest
"""

EXAMPLES = r"""
- name: What this host's jobs have made
  hms.postgres.pg_backup_info:
    config_directory: /etc/hms-postgres/hospital
  register: found

- name: Stop where a job's newest verified backup is too old
  ansible.builtin.assert:
    that: found.fresh
    fail_msg: "{{ found.freshness | rejectattr('ok') | map(attribute='what') | join(' ') }}"

- name: The newest ten of one database in a bucket
  hms.postgres.pg_backup_info:
    cluster: hospital
    database: hospital
    store:
      s3:
        bucket: hospital-backups
    limit: 10
"""

RETURN = r"""
at:
  description: When it was looked, by the managed host's clock. Ages are counted from here.
  returned: success
  type: str
  sample: '2026-11-22T12:00:00.000Z'
cluster:
  description: The cluster's name.
  returned: success
  type: str
  sample: hospital
environment:
  description: The environment's name.
  returned: success
  type: str
  sample: production
server_role:
  description: What the host's PostgreSQL is, V(primary), V(standby) or V(unknown) where it doesn't answer.
  returned: success, if V(server) is among O(gather)
  type: str
  sample: primary
backups:
  description: The backups, newest first.
  returned: success, if V(backups) is among O(gather), as everything that follows
  type: list
  elements: dict
  contains:
    id:
      description: The backup's id.
      returned: success
      type: str
      sample: 20261122T020000Z-backup-3fa9
    database:
      description: The database.
      returned: success
      type: str
      sample: hospital
    engine:
      description: What made it.
      returned: success
      type: str
      sample: pg_dump
    type:
      description: What is in it.
      returned: success
      type: str
      sample: full
    host:
      description: The host that made it.
      returned: success
      type: str
      sample: db1
    started:
      description: When it was started, by the database server's clock.
      returned: success
      type: str
      sample: '2026-11-22T02:00:00.000Z'
    age_seconds:
      description: How long ago that was.
      returned: success
      type: int
      sample: 36000
    bytes:
      description: Its size in one store.
      returned: success
      type: int
      sample: 365000000
    encryption:
      description: How it is encrypted, V(none), V(public_key) or V(passphrase).
      returned: success
      type: str
      sample: public_key
    verified:
      description: Whether it was proven and nothing later spoke against it, in one store at least.
      returned: success
      type: bool
      sample: true
    proof:
      description: The best proof that still counts, null where there is none.
      returned: success
      type: dict
      sample: {level: read, ok: true, at: '2026-11-22T02:01:00.000Z', seconds: 2.1}
    verification:
      description: The newest verification, whatever it said.
      returned: success
      type: dict
      sample: {level: read, ok: true, at: '2026-11-22T02:01:00.000Z', seconds: 2.1}
    restored_at:
      description: When a restore drill brought it back last, null where none did or where it was found bad since.
      returned: success
      type: str
      sample: '2026-11-22T03:10:00.000Z'
    copies:
      description: The stores that hold it.
      returned: success
      type: list
      elements: dict
      sample: [{store: /srv/backups, verified: true, bad: false}]
    restorable_from:
      description: The first moment to which it can be restored. A dump shows one moment.
      returned: success
      type: str
      sample: '2026-11-22T02:00:03.120Z'
    restorable_to:
      description: The last such moment; null where a hole in the WAL ends it at a time that nobody noted.
      returned: success
      type: str
      sample: '2026-11-22T02:00:03.120Z'
    parent:
      description: The id of the backup that it needs, empty for none.
      returned: success
      type: str
      sample: ''
    held:
      description: Whether a legal hold (an object C(hold.json) in its folder) keeps it from being removed.
      returned: success
      type: bool
      sample: false
    locked_until:
      description: Until when the store's object lock holds it, empty for none.
      returned: success
      type: str
      sample: ''
total:
  description: How many there are, RV(backups) being limited by O(limit).
  returned: success
  type: int
  sample: 37
bytes:
  description: Bytes that all of them take in all stores.
  returned: success
  type: int
  sample: 13500000000
problems:
  description: What isn't as it should be.
  returned: success
  type: list
  elements: dict
  sample:
    - store: /srv/backups
      key: hospital/hospital/20261120T020000Z-backup-11c0/manifest.json
      kind: incomplete
      what: >-
        hospital/hospital/20261120T020000Z-backup-11c0 in /srv/backups is not whole: data.dump.zst.gpg is missing.
        It counts as no backup.
jobs:
  description: The schedule, where O(config_directory) is given.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: daily, database: hospital, engine: pg_dump, type: full, cron: 0 2 * * *, run_on: primary, max_age: 108000}
freshness:
  description: For each job that demands it, whether its newest verified backup is young enough.
  returned: success
  type: list
  elements: dict
  sample:
    - job: daily
      ok: true
      age: 36000
      what: 'daily: the newest verified full backup of hospital is 10 h old; 30 h are allowed.'
proven:
  description: Whether a restore drill brought one of the backups back within O(proven_within), and what is the case.
  returned: when O(proven_within) is given and O(gather) has V(backups)
  type: dict
  sample:
    ok: true
    what: The last restore drill of hospital that passed was 3.2 days ago, of 20261119T020000Z-backup-3fa9.
    id: 20261119T020000Z-backup-3fa9
    age: 276480
fresh:
  description: Whether all of them are.
  returned: success
  type: bool
  sample: true
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: store_unreachable
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Look whether the service runs.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._artifact.arguments import STORE
from ansible_collections.hms.postgres.plugins.module_utils._backup.arguments import BACKUP
from ansible_collections.hms.postgres.plugins.module_utils._backup.info import info
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner


def main() -> None:
    """Read the arguments, look, report."""
    module = AnsibleModule(
        argument_spec={
            "config_directory": {"type": "path"},
            "cluster": {"type": "str"},
            "environment": {"type": "str", "default": ""},
            "database": {"type": "str"},
            "pgbackrest": BACKUP["pgbackrest"],
            "gather": {"type": "list", "elements": "str", "choices": ["backups", "server"], "default": ["backups"]},
            "limit": {"type": "int", "default": 0},
            "proven_within": {"type": "str"},
            **STORE,
        },
        mutually_exclusive=[("config_directory", name) for name in ("cluster", "store", "pgbackrest")],
        required_one_of=[("config_directory", "cluster")],
        supports_check_mode=True,
    )
    runner, clock = SystemRunner(), SystemClock()
    _module.run(module, lambda: info(module.params, check_mode=module.check_mode, runner=runner, clock=clock))


if __name__ == "__main__":
    main()
