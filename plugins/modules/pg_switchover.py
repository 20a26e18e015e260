#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_switchover
short_description: Hands the primary's role to a standby without losing or failing a transaction
version_added: 0.1.0
description:
  - Holds the clients in every PgBouncer process, stops the primary, proves that the candidate has replayed its last
    record, promotes it, leads the bouncers over and lets the clients go on. The old primary comes back as a standby.
  - Everything slow is done before the first client waits. Any error before the promotion leads back to the old primary.
  - When the controller dies in the middle, the agents on the hosts bring the cluster into the old state or the new one.
extends_documentation_fragment:
  - hms.postgres.site
  - hms.postgres.site.planned
  - hms.postgres.operation
  - hms.postgres.recorded
options:
  candidate:
    description: The standby that is to lead.
    type: str
    required: true
seealso:
  - module: hms.postgres.pg_failover
  - module: hms.postgres.pg_cluster_info
"""

EXAMPLES = r"""
- name: Show what a switchover would do
  hms.postgres.pg_switchover:
    cluster: hospital
    environment: staging
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
    records_directory: /var/lib/hms-postgres/records
    candidate: db2
  check_mode: true
  diff: true

- name: Switch over in production
  hms.postgres.pg_switchover:
    cluster: hospital
    environment: production
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
    records_directory: /var/lib/hms-postgres/records
    candidate: db2
    confirm: hospital
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
