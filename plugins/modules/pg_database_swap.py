#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_database_swap
short_description: Makes another database the live one while clients wait for a moment
version_added: 0.1.0
description:
  - Holds the clients of one database in every PgBouncer process, renames the live database and another one against each
    other in one transaction, and lets the clients go on in the new one. The former live database is kept.
  - Everything slow is done before the first client waits. Any error before the transaction has committed leads back to
    the database that was live; there is no state between the two.
  - When the controller dies in the middle, the agents on the hosts let the clients go. The catalog says which database
    is live, and a second run reads it there.
  - Whether there is anything to do is measured in the catalog. The transaction leaves the setting C(hms.swapped) on
    both databases, with the operation and the name that each had before. A run has nothing to do when O(scratch) does
    not exist and the live database was made of one of that name.
  - Services that write to the database can be stopped meanwhile. They are started again whatever happens; should
    controller and agents be killed at once, by the next run.
  - Works without bouncers too; then nobody is held, and who connects in that moment sees an error.
  - Where the live database is missing, because somebody dropped it, O(force=no_database) gives its name to O(scratch).
    Then nothing is kept, and there is nothing to go back to.
  - The database that becomes live must take connections, and must be restored and checked.
  - What the other database lacks of the schema C(hms), by which bouncers log in, is made as the live database has it.
  - Standbys follow by replication. Sessions on them stay in the former database, whose data they would go on reading;
    with O(sessions=terminate) they are ended as soon as the standby has replayed the swap.
extends_documentation_fragment:
  - hms.postgres.site
  - hms.postgres.site.planned
  - hms.postgres.recorded
options:
  database:
    description: The name of the live database, as clients use it.
    type: str
    required: true
  scratch:
    description:
      - The database that becomes live.
      - Required with O(state=swapped). With O(state=rolled_back) the default is the newest one that was kept under
        C(<database>_before_<time>).
    type: str
    default: ''
  keep_as:
    description:
      - The name that the present live database gets.
      - The default is C(<database>_before_<time>), with O(state=rolled_back) C(<database>_after_<time>), the time in
        UTC as C(20250622T120000Z). A long name is cut before these words, so that the whole has 63 bytes at most.
    type: str
    default: ''
  state:
    description:
      - With V(swapped), O(scratch) becomes live.
      - With V(rolled_back), the database that was live before the last swap becomes live again. Asked for twice it
        still goes back one step only; to go back further, name the database as O(scratch). It can be taken back by
        naming the C(<database>_after_<time>) that it kept.
    type: str
    choices: [swapped, rolled_back]
    default: swapped
  sessions:
    description:
      - What happens to sessions in the live database that do not come through the bouncers.
      - V(terminate) ends them while the clients are held.
      - V(wait) waits for them, at most O(sessions_deadline), before any client is held.
      - V(refuse) refuses the swap as long as there is one.
      - Autovacuum and sessions of the collection itself, its monitoring role among them, are ended without a question.
    type: str
    choices: [terminate, wait, refuse]
    default: terminate
  sessions_deadline:
    description:
      - Seconds in which sessions must have ended, and in which the server must have let us rename.
      - With O(sessions=wait) that is how long they are waited for.
    type: float
    default: 5.0
  hold_deadline:
    description: Seconds in which every transaction through the bouncers must have come to its end.
    type: float
    default: 3.0
  confirm:
    description: Must be the live database's name in production. A wrong name is refused everywhere.
    type: str
    default: ''
  probes:
    description:
      - Whether to write through every process, during the swap and after it. It needs the schema C(hms) that
        M(hms.postgres.pg_objects) makes.
      - Which database clients reach is asked through every process in any case.
    type: bool
    default: true
  services:
    description:
      - systemd units that are stopped before any client is held, in this order, each proven inactive before the
        next one. Name what takes requests first, then workers, then what starts work by the clock.
      - After clients were let go they are started in the other order, and each is proven active. What did not run
        before is not started.
      - A unit that is not known, or a host that cannot be asked, refuses the swap. A unit that does not stop leads back
        to where it began. A unit that does not start leaves the swap as it is, and fails the run.
      - Every host needs a line of M(hms.postgres.agent_line); one without a role in the cluster gets it by
        O(hms.postgres.agent_line#module:state_directory).
    type: list
    elements: dict
    default: []
    suboptions:
      host:
        description: The host's name in the inventory.
        type: str
        required: true
      unit:
        description: The unit's name with its ending, such as V(hms-web.service).
        type: str
        required: true
  services_deadline:
    description: Seconds that each unit may take to stop, and to start.
    type: float
    default: 60.0
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Looks at every host and at both databases, and stops after the plan. It says which bouncers would hold their
        clients, which sessions would be ended, and what stands in the way.
seealso:
  - module: hms.postgres.pg_switchover
  - module: hms.postgres.pg_objects
"""

EXAMPLES = r"""
- name: Show what making the restored database the live one would do
  hms.postgres.pg_database_swap:
    cluster: hospital
    environment: staging
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
    records_directory: /var/lib/hms-postgres/records
    database: hospital
    scratch: hospital_restore
  check_mode: true
  diff: true

- name: Make the restored database the live one, in production
  hms.postgres.pg_database_swap:
    cluster: hospital
    environment: production
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
    records_directory: /var/lib/hms-postgres/records
    database: hospital
    scratch: hospital_restore
    sessions: wait
    sessions_deadline: 60
    confirm: hospital

- name: Go back to the database as it was
  hms.postgres.pg_database_swap:
    cluster: hospital
    environment: production
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
    records_directory: /var/lib/hms-postgres/records
    database: hospital
    state: rolled_back
    confirm: hospital
"""

RETURN = r"""
msg:
  description: How it ended, in one sentence.
  returned: always
  type: str
  sample: >-
    hospital is now what hospital_restore was; the database that clients used until then is kept as
    hospital_before_20250622T120000Z.
database:
  description: The live database's name.
  returned: success
  type: str
  sample: hospital
scratch:
  description: The database that became live, by the name that it had.
  returned: success
  type: str
  sample: hospital_restore
kept_as:
  description: The name that the former live database has now, or would get; empty when there was nothing to do.
  returned: success
  type: str
  sample: hospital_before_20250622T120000Z
oid:
  description: The OID of the database that is live now, or would be.
  returned: success
  type: int
  sample: 16437
sessions:
  description: The sessions past the bouncers that were there when it was planned.
  returned: success
  type: list
  elements: str
  sample: ['pid 4711: reporting (psql) from 10.0.0.9, idle for 312 s']
primary:
  description: The primary on which it was done.
  returned: success
  type: str
  sample: db1
plan:
  description: The plan with its actions, their reasons, the refusals and what is predicted.
  returned: success
  type: dict
  sample:
    summary: hospital_restore becomes hospital; the present hospital is kept as hospital_before_20250622T120000Z.
    actions: []
    refusals: []
    warnings: []
    predicted: {stall_seconds: 0.1, lost_transactions: 0, basis: []}
refused:
  description: Why it would be refused.
  returned: in check mode, when a rule forbids it
  type: list
  elements: str
  sample: ["[prepared_transactions] hospital has prepared transactions ('billing-17')."]
record:
  description: The operation's record without the series of samples.
  returned: when something was done
  type: dict
  sample: {id: 20261122T162236Z-swap-15ad, outcome: {status: done}}
record_path:
  description: The record's file on the controller; the report lies beside it, with the ending C(.html).
  returned: success
  type: str
  sample: /home/operator/.local/state/hms-postgres/records/20261122T162236Z-swap-15ad.json
report:
  description: The report for the terminal, line by line.
  returned: when something was done
  type: list
  elements: str
  sample: ["hospital is now what hospital_restore was."]
report_path:
  description: The report as a page.
  returned: failure, when there is a record
  type: str
  sample: /home/operator/.local/state/hms-postgres/records/20261122T162236Z-swap-15ad.html
reason:
  description: A slug for what went wrong, the first rule that forbids it among them.
  returned: failure
  type: str
  sample: prepared_transactions
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: hospital is the database that it was; the clients go on there. Nothing was changed.
next_step:
  description: What to do.
  returned: failure
  type: str
  sample: End them, raise sessions_deadline, or say sessions terminate.
details:
  description: Evidence; the refusals, or the record's path.
  returned: failure
  type: dict
  sample: {record: /home/operator/records/20261122T162236Z-swap-15ad.json}
"""
