#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_failover
short_description: Promotes the most advanced standby when the primary is lost
version_added: 0.1.0
description:
  - Holds the clients, fences the old primary and writes down the proof, stops every WAL receiver, compares timelines
    and positions, promotes the most advanced standby, leads the bouncers over and lets the clients go on.
  - Without a proof that the old primary takes no more writes it refuses, unless O(force) names that rule.
  - When a primary is alive and every bouncer leads to it, there is nothing to do and nothing is changed.
extends_documentation_fragment:
  - hms.postgres.site
  - hms.postgres.site.urgent
  - hms.postgres.operation
  - hms.postgres.recorded
options:
  candidate:
    description: The standby that is to lead; the most advanced one when empty.
    type: str
    default: ''
  hold_seconds:
    description: Seconds after which sessions that don't end are cut, because the server they hang on doesn't answer.
    type: float
    default: 3.0
  fence_command:
    description:
      - A program with its arguments, run on the controller when the old primary's host can't be reached. It must cut
        the old primary off (its power, its network) and check that it did; exit code 0 is taken as the proof.
      - It is never given to a shell.
    type: list
    elements: str
    default: []
seealso:
  - module: hms.postgres.pg_switchover
  - module: hms.postgres.pg_rejoin
"""

EXAMPLES = r"""
- name: Fail over to the most advanced standby
  hms.postgres.pg_failover:
    cluster: hospital
    environment: staging
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
    records_directory: /var/lib/hms-postgres/records

- name: Fail over in production, the primary's host being cut off by its power switch
  hms.postgres.pg_failover:
    cluster: hospital
    environment: production
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
    records_directory: /var/lib/hms-postgres/records
    confirm: hospital
    fence_command: [/usr/local/sbin/power-off-and-check, db1]
"""

RETURN = r"""
msg:
  description: How it ended, in one sentence.
  returned: always
  type: str
  sample: db2 took over from db1; nothing acknowledged was lost.
primary:
  description: The primary after it, or the one planned in check mode.
  returned: success
  type: str
  sample: db2
plan:
  description: The plan with its actions, their reasons, the refusals and what is predicted.
  returned: success
  type: dict
  sample:
    summary: db2 takes over from db1; db1 becomes its standby.
    old_primary: db1
    new_primary: db2
    actions: []
    refusals: []
    warnings: []
    predicted: {stall_seconds: 0.29, lost_transactions: 0, basis: []}
refused:
  description: Why it would be refused.
  returned: in check mode, when a rule forbids it
  type: list
  elements: str
  sample: ["[backup_running] 1 base backups are being taken from db1; they would be cut. Wait until they are done."]
record:
  description: The operation's record without the series of samples.
  returned: when something was done
  type: dict
  sample: {id: 20261122T162236Z-switchover-15ad, outcome: {status: done}}
record_path:
  description: The record's file on the controller; the report lies beside it, with the ending C(.html).
  returned: success
  type: str
  sample: /home/operator/.local/state/hms-postgres/records/20261122T162236Z-switchover-15ad.json
report:
  description: The report for the terminal, line by line.
  returned: when something was done
  type: list
  elements: str
  sample: ["db2 took over from db1."]
report_path:
  description: The report as a page.
  returned: failure, when there is a record
  type: str
  sample: /home/operator/.local/state/hms-postgres/records/20261122T162236Z-failover-15ad.html
reason:
  description: A slug for what went wrong, the first rule that forbids it among them.
  returned: failure
  type: str
  sample: no_fence_proof
state:
  description: What state the cluster is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do.
  returned: failure
  type: str
  sample: Power it off and give that as fence_command.
details:
  description: Evidence; the refusals, or the record's path.
  returned: failure
  type: dict
  sample: {record: /home/operator/records/20261122T162236Z-failover-15ad.json}
"""
