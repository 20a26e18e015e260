#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore_safe
short_description: Restores a backup beside the live database, proves it, and has it ready to be swapped in
version_added: 0.1.0
description:
  - Finds a backup, looks at everything that could stand against its restore, and says all of it before anything is
    touched. Nothing but the plan is made in check mode.
  - With O(strategy=swap) the backup is restored into a scratch database with the live one's encoding, locale, owner,
    settings, rights and connection limit. Rows, large objects, constraints, indexes and migrations are compared with
    the manifest, B-trees are checked where the extension amcheck is installed, and O(assertions) are asked.
    Only then is it marked as proven. The live database is not touched; C(playbooks/restore.yml) swaps it in.
  - With O(strategy=in_place), for hosts without room for two copies, a verified backup of the live database is made
    first. Then the live one is dropped, and its name is given to the restored one when that is proven. When the
    restore or its proof fails, the backup made before is restored by itself.
  - The stored bytes are hashed while they are read and compared with the manifest. What is damaged, cut short,
    encrypted to another key or written by a newer PostgreSQL is told apart, and no half-made database stays.
  - A run that was killed can be run again. What it left is dropped, and what it had proven is used.
options:
  config_directory:
    description:
      - The folder on the managed host in which the role hms.postgres.backup keeps C(backup.json).
        Server, stores and passphrase are then those of the host. Options given here come first.
      - One of this and O(cluster) is needed.
    type: path
  cluster:
    description: The cluster's name, where O(config_directory) isn't given.
    type: str
  environment:
    description:
      - The environment into which is restored. By default the one of C(backup.json).
        What was backed up in V(production) is not restored elsewhere without O(mask) or O(allow_phi).
    type: str
  database:
    description: The database that is to come back.
    type: str
    required: true
  backup:
    description:
      - What is restored. V(latest) is the newest full backup of O(database) by pg_dump that did not fail its
        verification.
      - Or a backup's id, the path of an artifact's folder, of one of its files, or C(s3://bucket/key).
      - Old files without a manifest are taken by their path as well, C(.dump) for custom archives and C(.sql) for
        scripts, both with C(.gz), C(.zst), C(.lz4) and C(.gpg) behind it. Nothing says what they should hold.
    type: str
    default: latest
  strategy:
    description: Whether the restored database comes to life beside the live one, or in its place.
    type: str
    choices: [swap, in_place]
    default: swap
  jobs:
    description:
      - How many sessions collect statistics and count rows, and how many jobs restore a backup in the directory format.
        By default as many as there are cores, at most four.
      - An archive in the custom format is restored from the stream by one job, and nothing of it lies on a disk. Where
        O(jobs) is given, and more than one, it is staged in O(work_dir), in a file without a name, which is gone when
        the module is, however it ends; then so many jobs restore it.
    type: int
  assertions:
    description: Questions to the restored database, after O(mask). They are asked in a transaction that only reads.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is about.
        type: str
        required: true
      sql:
        description: The question. The first column of the first row is the answer.
        type: str
        required: true
      expect:
        description: The answer that it must give.
        type: raw
        default: true
  mask:
    description:
      - SQL files on the managed host that run in the scratch database, each in one transaction, before it is handed
        over. Commands to psql in them are refused.
    type: list
    elements: path
    default: []
  again:
    description:
      - Whether a backup that the live database was made of is restored once more, with O(strategy=swap). Otherwise
        there is nothing to do then, so that a run that was killed at its very end can be run again.
    type: bool
    default: false
  keep_failed:
    description:
      - Whether a scratch database that failed its proof is kept to be looked at. By default it is dropped.
        The next restore drops it.
    type: bool
    default: false
  allow_phi:
    description: Whether patients' data from production may come to another environment as they are.
    type: bool
    default: false
  allow_other_system:
    description: Whether the backup may come from another cluster, told by its system identifier.
    type: bool
    default: false
  allow_other_database:
    description: Whether the backup may be one of a database with another name.
    type: bool
    default: false
  allow_plain_sql:
    description:
      - Whether an SQL script may be run. It is run with a superuser's rights, so it has to come from somebody trusted.
      - It is never given to C(psql). Commands to psql, programs and files in C(COPY), and statements about databases,
        roles and tablespaces are refused before anything runs.
    type: bool
    default: false
  backup_before:
    description: With O(strategy=in_place), whether a verified backup is made before the live database is dropped.
    type: bool
    default: true
  sessions:
    description: With O(strategy=in_place), what is done with those who are connected to the live database.
    type: str
    choices: [refuse, wait, terminate]
    default: refuse
  wait_seconds:
    description: How long to wait for them with O(sessions=wait).
    type: float
    default: 60.0
  confirm:
    description:
      - The database's name. Needed in V(production); checked wherever it is given.
    type: str
  force:
    description: Rules that are set aside, by name, as the refusal named them.
    type: list
    elements: str
    default: []
    choices:
      - bad_artifact
      - backup_running
      - encoding_differs
      - logical_slots
      - missing_tablespaces
      - no_room
      - pg_cron
      - schema_only
      - subscriptions
  keep_days:
    description: How many days the old database is to be kept after the swap; it tells RV(plan) until when.
    type: float
    default: 7.0
  state_dir:
    description:
      - The folder for locks and records on the managed host; by default C(/var/lib/hms-postgres/), cluster.
    type: path
  work_dir:
    description:
      - The folder in which an archive is staged for several jobs, and a backup in the directory format unpacked, which
        lies there unencrypted until it is restored; by default C(restore) in O(state_dir).
      - A guard, a process of its own, removes what was unpacked, also when the module is killed.
    type: path
  timeout:
    description: Seconds for the whole.
    type: float
    default: 86400.0
  login_host:
    description: The server's host name or address, or the folder of its socket. By default that of C(backup.json).
    type: str
  login_port:
    description: The server's port.
    type: int
  login_user:
    description: A superuser.
    type: str
  os_user:
    description:
      - The operating system's user that connects and that PostgreSQL's programs run as, by default V(postgres).
        An empty string means the one that runs the module.
    type: str
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Everything is looked at and every refusal is made that a real run would make, except for a missing O(confirm).
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - The diff holds the steps of the plan.
  idempotent:
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: partial
    details:
      - With O(strategy=swap) a scratch database that was proven for the same order, and was not swapped in yet, is
        used again.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - psycopg >= 3.1 (Debian's package python3-psycopg)
  - PostgreSQL's client programs of the server's own major version (postgresql-client-15)
  - zstd or lz4, and gpg with python-gnupg (python3-gnupg), where the backup needs them
  - boto3 (python3-boto3) for O(store.s3)
  - setpriv (util-linux)
seealso:
  - module: hms.postgres.pg_backup
  - module: hms.postgres.pg_restore_cleanup
author:
  - the hms.postgres authors (@hms-postgres)
extends_documentation_fragment:
  - hms.postgres.backup_encryption
  - hms.postgres.backup_store
  - hms.postgres.connection
"""

EXAMPLES = r"""
- name: What the newest backup would need to come back
  hms.postgres.pg_restore_safe:
    config_directory: /etc/hms-postgres/hospital
    database: hospital
    encryption:
      key_files: [/run/keys/escrow.asc]
  check_mode: true
  diff: true

- name: The newest backup beside the live database, proven
  hms.postgres.pg_restore_safe:
    config_directory: /etc/hms-postgres/hospital
    database: hospital
    confirm: hospital
    encryption:
      key_files: [/run/keys/escrow.asc]
    assertions:
      - name: there are appointments of this week
        sql: SELECT count(*) > 0 FROM appointments WHERE starts > now() - interval '7 days'

- name: Production's backup for staging, masked
  hms.postgres.pg_restore_safe:
    cluster: hospital
    environment: staging
    database: hospital
    backup: s3://hospital-backups/hospital/hospital/20261122T020000Z-backup-3fa9
    allow_other_system: true
    mask: [/etc/hms-postgres/mask.sql]
    encryption:
      key_files: [/run/keys/escrow.asc]
    store:
      s3:
        bucket: hospital-backups
"""

RETURN = r"""
id:
  description: The id of the restore and of its record.
  returned: success
  type: str
  sample: 20261122T154500Z-restore-3fa9
ready:
  description: Whether RV(scratch) is proven and may be swapped in.
  returned: success
  type: bool
  sample: true
restored:
  description: Whether the database was restored in place.
  returned: success
  type: bool
  sample: false
scratch:
  description: The scratch database.
  returned: success
  type: str
  sample: hms_restore_8c1d0f2a77_3fa901
live_already:
  description: Whether the live database was made of this very backup, by this order, so that there was nothing to do.
  returned: success
  type: bool
  sample: false
live:
  description: The database that is to be replaced.
  returned: success
  type: str
  sample: hospital
live_exists:
  description: Whether there is one of that name now.
  returned: success
  type: bool
  sample: true
before_name:
  description: The name under which the live database is to stay after the swap.
  returned: success, null where there is nothing to be kept
  type: str
  sample: hospital_before_20261122T154500Z
strategy:
  description: How it was restored.
  returned: success
  type: str
  sample: swap
plan:
  description: What was to be done, with what, and what was set aside by name.
  returned: success
  type: dict
  sample:
    artifact: {name: 20261122T020000Z-backup-3fa9, "verified by manifest": "yes"}
    steps: [make hms_restore_8c1d0f2a77_3fa901 closed to others]
    needed: 1736000000
validations:
  description: What was looked at in the restored database.
  returned: success
  type: list
  elements: dict
  sample: [{name: contents, ok: true, detail: "9 tables, 1845 rows, 5 large objects, as in the manifest"}]
record:
  description: The record's file on the managed host.
  returned: success, null in check mode
  type: str
  sample: /var/lib/hms-postgres/hospital/records/20261122T154500Z-restore-3fa9.json
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: artifact_damaged
phase:
  description: The step or the program that failed.
  returned: failure
  type: str
  sample: load
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: The live database was not touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Use another copy, or another backup.
"""

import typing as t

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._backup.manager import backup
from ansible_collections.hms.postgres.plugins.module_utils._backup.policy_sources import host_of
from ansible_collections.hms.postgres.plugins.module_utils._backup.wishes import wish_from
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._restore.arguments import RESTORE
from ansible_collections.hms.postgres.plugins.module_utils._restore.manager import restore
from ansible_collections.hms.postgres.plugins.module_utils._restore.order import backup_arguments, order_from


def work(params: dict[str, t.Any], *, check_mode: bool) -> _module.Result:
    """What rooms may not know of each other is put together here: the host's backup policy, and the restore."""
    runner, clock = SystemRunner(), SystemClock()
    base, sources, known = host_of(params)
    order = order_from(params, base=base, sources=sources, known=known)

    def before() -> _module.Result:
        wish = wish_from(backup_arguments(params, base=base, order=order))
        return backup(wish, check_mode=False, runner=runner, clock=clock, by="module pg_restore_safe")

    return restore(order, check_mode=check_mode, runner=runner, clock=clock, backup=before)


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec=RESTORE, required_one_of=[("config_directory", "cluster")], supports_check_mode=True
    )
    _module.run(module, lambda: work(module.params, check_mode=module.check_mode))


if __name__ == "__main__":
    main()
