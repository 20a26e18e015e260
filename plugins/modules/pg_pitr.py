#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_pitr
short_description: Recovers a cluster to a point in time beside the live one, and brings single tables back
version_added: 0.1.0
description:
  - Restores a pgBackRest backup into a side directory, starts it on its own port and socket with archiving off, and
    recovers it to a target, where it stays paused and can be read.
  - The live cluster works on and is not touched. Only O(state=rescued) writes to it.
  - The backup to start from is chosen by the target. A target before the end of the oldest backup, in the future, or
    behind a hole in the WAL archive is refused before anything is made, with what can be reached.
  - Where the target is later than the newest WAL in the archive, one empty transaction is made on the live primary and
    its current segment is closed, so that it is archived (O(flush_wal)).
  - Run again with a later target, recovery goes on. With an earlier one, the files that differ are restored again.
  - A run that was killed goes on when it is run again.
options:
  state:
    description:
      - V(recovered) has the side cluster paused at the target.
      - V(candidates) searches the WAL for transactions that deleted, updated, emptied or dropped
        O(before_transaction_on), and lists them, the gravest first. Nothing is recovered.
      - V(rescued) copies O(tables) from the side cluster into the live database.
      - V(absent) stops the side cluster and removes its directory, if it carries this module's marker.
    type: str
    choices: [recovered, absent, candidates, rescued]
    default: recovered
  config_directory:
    description:
      - The folder on the managed host in which the role hms.postgres.backup keeps C(backup.json). What isn't given here
        is taken from it.
      - One of this and O(cluster) is needed.
    type: path
  cluster:
    description: The cluster's name.
    type: str
  environment:
    description: The environment's name.
    type: str
  database:
    description: The database that is looked at, searched and rescued from. All of the cluster is recovered.
    type: str
  confirm:
    description: The cluster's name. Needed in the environment V(production) for V(recovered) and V(rescued).
    type: str
    default: ''
  asked_by:
    description: Who asked, for the record.
    type: str
    default: ''
  target_time:
    description: The moment to recover to, such as V(2025-06-22 12:00:00+02). Without a zone it is refused.
    type: str
  target_lsn:
    description: The position in the WAL to recover to.
    type: str
  target_xid:
    description:
      - The transaction to recover to. It itself is left out unless O(inclusive=true), for it is the one that did the
        harm; PostgreSQL's own default is the other one.
      - Tables that it locked (TRUNCATE, DROP, ALTER) can't be read there. The warning names the LSN at which they can.
    type: str
  target_name:
    description: The restore point to recover to, made with pg_create_restore_point.
    type: str
  target_immediate:
    description: Recover to the end of the newest backup, or of O(label).
    type: bool
    default: false
  before_transaction_on:
    description:
      - The table whose harm is searched for. With O(choose) it is recovered to just before that candidate.
      - Other transactions that were committed earlier are all there.
    type: str
  search_since:
    description: The beginning of the window to search, with its zone. By default an hour before O(search_until).
    type: str
    default: ''
  search_until:
    description: The end of the window to search, with its zone. By default now.
    type: str
    default: ''
  choose:
    description: The number of the candidate to recover to just before.
    type: int
  inclusive:
    description: Whether what is at the target itself is recovered. By default true, for O(target_xid) false.
    type: bool
  timeline:
    description: The timeline to recover along. By default the newest.
    type: int
    default: 0
  label:
    description: The backup to start from. By default the newest that was complete before the target.
    type: str
    default: ''
  directory:
    description: The side directory. By default the live data directory's path with C(.pitr) behind it.
    type: path
  port:
    description: The side cluster's port; it names its socket and nothing else, for it listens on no network.
    type: int
    default: 0
  settings:
    description: More of PostgreSQL's settings for the side cluster, such as C(shared_buffers).
    type: dict
    default: {}
  processes:
    description: How many processes restore.
    type: int
    default: 2
  count:
    description: Tables whose rows are counted in the side cluster.
    type: list
    elements: str
    default: []
  newest:
    description: Tables, each with a column whose greatest value is shown.
    type: dict
    default: {}
  queries:
    description: SQL to run in the side cluster, read-only. Its rows are in the result and never in the record.
    type: list
    elements: str
    default: []
  tables:
    description: The tables to rescue, as C(table) or C(schema.table).
    type: list
    elements: str
    default: []
  mode:
    description:
      - V(copy) makes a new table beside each, with its columns and primary key, named C(_rescued_) and the LSN.
      - V(missing_rows) inserts into the live table the rows whose primary key isn't there any more. Triggers fire and
        foreign keys are checked. Rows that are there stay as they are.
      - All tables are done in one transaction.
    type: str
    choices: [copy, missing_rows]
    default: copy
  flush_wal:
    description: Whether the live primary's newest WAL may be brought into the archive where the target needs it.
    type: bool
    default: true
  archive_wait:
    description: Seconds until that WAL has to have arrived.
    type: float
    default: 60.0
  timeout:
    description: Seconds for the whole.
    type: float
    default: 86400.0
  login_host:
    description: The folder of the live server's socket, or its address.
    type: str
  login_port:
    description: The live server's port.
    type: int
  login_user:
    description: A superuser.
    type: str
  os_user:
    description: The operating system's user that owns the data directory and that PostgreSQL's programs run as.
    type: str
  data_directory:
    description: The live data directory, where the live server is down and can't be asked.
    type: path
  state_dir:
    description: The folder for the record and the lock; by default C(/var/lib/hms-postgres/) and the cluster's name.
    type: path
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Says which backup and which way it would be. A table's missing rows are counted in a temporary table.
      - No WAL is flushed, so what was written a moment ago may not be found yet.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
requirements:
  - pgBackRest 2.45 or newer
  - the server programs of the cluster's PostgreSQL version (postgresql-15)
  - psycopg >= 3.1 (python3-psycopg)
seealso:
  - module: hms.postgres.pg_backup_info
author:
  - the hms.postgres authors (@hms-postgres)
extends_documentation_fragment:
  - hms.postgres.pgbackrest
"""

EXAMPLES = r"""
- name: Look for the transaction that emptied a table this morning
  hms.postgres.pg_pitr:
    config_directory: /etc/hms-postgres/hospital
    state: candidates
    before_transaction_on: patients_patient
    search_since: '2025-06-22 08:00:00+02'
    search_until: '2025-06-22 12:00:00+02'

- name: Recover to just before the first of them, beside the live cluster
  hms.postgres.pg_pitr:
    config_directory: /etc/hms-postgres/hospital
    before_transaction_on: patients_patient
    search_since: '2025-06-22 08:00:00+02'
    search_until: '2025-06-22 12:00:00+02'
    choose: 1
    count: [patients_patient]
    confirm: hospital

- name: Put the rows back that are missing from the live table
  hms.postgres.pg_pitr:
    config_directory: /etc/hms-postgres/hospital
    state: rescued
    tables: [patients_patient]
    mode: missing_rows
    confirm: hospital

- name: Remove the side cluster
  hms.postgres.pg_pitr:
    config_directory: /etc/hms-postgres/hospital
    state: absent
"""

RETURN = r"""
directory:
  description: The side directory.
  returned: when O(state) is V(recovered) or V(absent)
  type: str
  sample: /var/lib/postgresql/15/main.pitr
port:
  description: The side cluster's port.
  returned: when O(state) is V(recovered)
  type: int
  sample: 5499
socket_directory:
  description: The folder of its socket.
  returned: when O(state) is V(recovered), not in check mode
  type: str
  sample: /var/lib/postgresql/15/main.pitr/run
psql:
  description: The command to look at it, as the operating system's user that owns it.
  returned: when O(state) is V(recovered), not in check mode
  type: str
  sample: psql -h /var/lib/postgresql/15/main.pitr/run -p 5499 -d hospital
target:
  description: What was recovered to.
  returned: when O(state) is V(recovered)
  type: dict
  sample: {kind: lsn, value: 0/5020270, inclusive: false, timeline: 0}
backup:
  description: The label of the backup from which it started.
  returned: when O(state) is V(recovered)
  type: str
  sample: 20250622-010002F
plan:
  description: What was done, or would be in check mode, and why. Empty where it stood at the target already.
  returned: when O(state) is V(recovered)
  type: list
  elements: str
  sample: ['restore: there is no side cluster at /var/lib/postgresql/15/main.pitr']
located:
  description: Where in the WAL the transaction or the restore point is.
  returned: when O(state) is V(recovered)
  type: dict
  sample: {lsn: 0/5025978, timeline: 1, time: '2025-06-22T09:58:40.289891Z'}
reached:
  description: How far recovery came, and what PostgreSQL's log says about where it stopped.
  returned: when O(state) is V(recovered), not in check mode
  type: dict
  sample: {paused: true, lsn: 0/5020270, timeline: 1, last_commit: '2025-06-22T09:58:12.030Z', log: recovery stopping …}
found:
  description: The answers to O(count), O(newest) and O(queries).
  returned: when O(state) is V(recovered), not in check mode
  type: dict
  sample: {tables: {patients_patient: {rows: 51233}}, newest: {}, queries: []}
candidates:
  description:
    - The transactions, the gravest first. C(before) is the LSN to which O(choose) recovers, exclusively.
    - For a table that isn't there any more, all that dropped files in the window; the WAL knows no names.
  returned: when O(state) is V(candidates)
  type: list
  elements: dict
  sample:
    - choose: 1
      xid: 730
      time: '2025-06-22T09:58:40.289891Z'
      local: '2025-06-22 11:58:40.289891+02:00'
      lsn: 0/5025978
      before: 0/5025978
      deletes: 51233
      updates: 0
      inserts: 0
      truncated: false
      rewritten: false
      dropped: false
      files: []
      timeline: 1
lines:
  description: The same for people.
  returned: when O(state) is V(candidates)
  type: list
  elements: str
  sample: ['1: transaction 730, 2025-06-22 11:58:40.289891+02:00: 51233 deleted']
segments_read:
  description: How many WAL segments were fetched and read.
  returned: when O(state) is V(candidates)
  type: int
  sample: 41
rescued:
  description: What was brought into the live database, by table.
  returned: when O(state) is V(rescued)
  type: list
  elements: dict
  sample: [{table: patients_patient, into: patients_patient, rows: 51233, made: false}]
seconds:
  description: How long each phase took.
  returned: when O(state) is V(recovered) or V(rescued)
  type: dict
  sample: {look: 0.5, restore: 41.0, start: 0.1, recover: 12.3}
record:
  description: The record's path on the host; after a failure in C(details.record).
  returned: when O(state) is V(recovered) or V(rescued)
  type: str
  sample: /var/lib/hms-postgres/hospital/records/20250622T101500Z-pitr-3fa9.json
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: before_backup
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: The side cluster is down; the live cluster was not touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Choose a later target; what was before can only come from a dump.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._pitr.arguments import PITR, TARGETS, perform
from ansible_collections.hms.postgres.plugins.module_utils._pitr.see import World
from ansible_collections.hms.postgres.plugins.module_utils._postgres import connect


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec=PITR,
        mutually_exclusive=[TARGETS],
        required_one_of=[("config_directory", "cluster")],
        supports_check_mode=True,
    )
    world = World(connect=connect, runner=SystemRunner(), clock=SystemClock())
    _module.run(module, lambda: perform(module.params, world, check_mode=module.check_mode))


if __name__ == "__main__":
    main()
