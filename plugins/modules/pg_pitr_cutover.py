#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_pitr_cutover
short_description: Makes a cluster that was recovered to a point in time the live one
version_added: 0.1.0
description:
  - M(hms.postgres.pg_pitr) recovers the cluster beside the live one and leaves it paused at the target. This module
    puts it in the live one's place. Everything that was written after the target is given up; the old data directory
    is kept under another name, and nothing is removed.
  - The side cluster is promoted and stopped while clients work on undisturbed. Then their pools are held, the live
    cluster is stopped, the two directories are renamed, the recovered cluster is started and the pools are let go. A
    write through every PgBouncer process proves it.
  - Until the recovered cluster has run in its new place, every error leads back to the live one as it was. A journal on
    the primary's host (C(cutover.json)) and the timelines in the control files say how far it is, so that the host's
    agent, or the next run, brings to an end what a killed run began.
  - Settings made by C(ALTER SYSTEM), and Debian's configuration, are those of the live cluster. Physical replication
    slots are made for every member. The collection's own roles keep the passwords that they have now.
  - Standbys hold the history that was left and can't follow. They are stopped and marked, and RV(rejoin) names them;
    M(hms.postgres.pg_rejoin) brings each back. C(synchronous_standby_names) is empty until then.
  - The new timeline is archived from its history file on. Make a full backup afterwards.
extends_documentation_fragment:
  - hms.postgres.site
  - hms.postgres.site.planned
  - hms.postgres.recorded
options:
  directory:
    description:
      - The side directory on the primary's host.
      - The default is the one beside the live data directory, with C(.pitr) behind its path.
    type: path
    default: ''
  hold_seconds:
    description: Seconds in which every transaction through the bouncers must have come to its end.
    type: float
    default: 3.0
  confirm:
    description: Must be the cluster's name in production. A wrong name is refused everywhere.
    type: str
    default: ''
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Looks at every host and at the side cluster, and stops after the plan. It says what would be given up, which
        standbys would have to come back, and what stands in the way.
seealso:
  - module: hms.postgres.pg_pitr
  - module: hms.postgres.pg_rejoin
  - module: hms.postgres.pg_backup
"""

EXAMPLES = r"""
- name: Show what making the recovered cluster the live one would do, and what would be given up
  hms.postgres.pg_pitr_cutover:
    cluster: hospital
    environment: production
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
    records_directory: /var/lib/hms-postgres/records
  check_mode: true
  diff: true

- name: Make the recovered cluster the live one
  hms.postgres.pg_pitr_cutover:
    cluster: hospital
    environment: production
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
    records_directory: /var/lib/hms-postgres/records
    confirm: hospital
  register: hms_pitr_cutover

- name: Say who has to come back as a standby
  ansible.builtin.debug:
    msg: "Rejoin {{ hms_pitr_cutover.rejoin | join(', ') | default('nobody', true) }}"
"""

RETURN = r"""
msg:
  description: How it ended, in one or two sentences.
  returned: always
  type: str
  sample: >-
    hospital is what it was at 2025-06-22 10:00:00.000000+00. Timeline 3 left timeline 2 at 0/5020270; what timeline 2
    wrote after that is in /var/lib/postgresql/15/main.before_20250622T120000Z, and no longer live.
target:
  description: The target to which the side cluster was recovered, in words.
  returned: success
  type: str
  sample: '2025-06-22 10:00:00.000000+00'
target_lsn:
  description: The position up to which the live cluster's history holds.
  returned: success
  type: str
  sample: 0/5020270
kept_as:
  description: Where the old data directory is, or would be kept.
  returned: success
  type: str
  sample: /var/lib/postgresql/15/main.before_20250622T120000Z
timeline:
  description: The primary's timeline after the run.
  returned: success
  type: int
  sample: 3
rejoin:
  description: The database hosts that have to be rejoined, or would have to be.
  returned: success
  type: list
  elements: str
  sample: [db2, db3]
since:
  description: When the recovered cluster was started in its new place, where an earlier run did it; else empty.
  returned: success
  type: str
  sample: '2025-06-22T12:00:00.000Z'
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
    summary: hospital becomes what it was at 2025-06-22 10:00:00.000000+00 (0/5020270).
    actions: []
    refusals: []
    warnings: []
    predicted: {stall_seconds: 1.2, lost_transactions: null, basis: []}
refused:
  description: Why it would be refused.
  returned: in check mode, when a rule forbids it
  type: list
  elements: str
  sample: ["[side_not_paused] The side cluster in /var/lib/postgresql/15/main.pitr is down."]
record:
  description: The operation's record without the series of samples.
  returned: when something was done
  type: dict
  sample: {id: 20250622T120000Z-cutover-15ad, outcome: {status: done}}
record_path:
  description: The record's file on the controller; the report lies beside it, with the ending C(.html).
  returned: success
  type: str
  sample: /home/operator/.local/state/hms-postgres/records/20250622T120000Z-cutover-15ad.json
report:
  description: The report for the terminal, line by line.
  returned: when something was done
  type: list
  elements: str
  sample: ["hospital is what it was at 2025-06-22 10:00:00.000000+00."]
report_path:
  description: The report as a page.
  returned: failure, when there is a record
  type: str
  sample: /home/operator/.local/state/hms-postgres/records/20250622T120000Z-cutover-15ad.html
reason:
  description: A slug for what went wrong, the first rule that forbids it among them.
  returned: failure
  type: str
  sample: side_not_paused
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: db1 leads with the data that it had; the clients go on there.
next_step:
  description: What to do.
  returned: failure
  type: str
  sample: Run playbooks/pitr.yml with the same target.
details:
  description: Evidence; the refusals, or the record's path.
  returned: failure
  type: dict
  sample: {record: /home/operator/records/20250622T120000Z-cutover-15ad.json}
"""
