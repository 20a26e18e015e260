#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_cluster_info
short_description: Tells who leads, who follows, how far behind, and where the bouncers lead
version_added: 0.1.0
description:
  - Asks every host's agent at once and returns the whole cluster as data. Nothing is changed.
extends_documentation_fragment:
  - hms.postgres.site
  - hms.postgres.site.urgent
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: N/A
seealso:
  - module: hms.postgres.pg_switchover
"""

EXAMPLES = r"""
- name: Look at the cluster
  hms.postgres.pg_cluster_info:
    cluster: hospital
    environment: staging
    databases: "{{ groups['database'] }}"
    bouncers: "{{ groups['bouncer'] }}"
  register: found

- name: Fail when something is wrong
  ansible.builtin.assert:
    that: found.cluster.problems | length == 0
"""

RETURN = r"""
cluster:
  description: The cluster as it was seen.
  returned: success
  type: dict
  contains:
    cluster: {description: Its name., type: str, returned: always, sample: hospital}
    environment: {description: Its environment., type: str, returned: always, sample: staging}
    at: {description: When it was looked at., type: str, returned: always, sample: '2026-11-22T16:22:36.697Z'}
    primary: {description: 'The one member that takes writes, or nothing.', type: str, returned: always, sample: db1}
    sync_policy: {description: 'How synchronous replication is.', type: str, returned: always, sample: strict}
    members:
      description: A row for each database host; positions as LSNs, lags in bytes and seconds.
      type: list
      elements: dict
      returned: always
      sample: [{name: db1, role: primary, timeline: 1, lsn: 0/3000148}]
    poolers:
      description: A row for each bouncer host with one for each of its processes.
      type: list
      elements: dict
      returned: always
      sample: [{name: bouncer1, points_at: db1, paused: false}]
    last_operation:
      description: The newest operation that any host knows of.
      type: dict
      returned: always
      sample: {id: 20261122T162236Z-switchover-15ad, status: done}
    problems:
      description: What is wrong, gravest first, each with what to do.
      type: list
      elements: dict
      returned: always
      sample: []
screen:
  description: The same as one screen of text, line by line.
  returned: success
  type: list
  elements: str
  sample: [hospital (staging)]
reason:
  description: A slug for what went wrong.
  returned: failure
  type: str
  sample: wrong_cluster
"""
