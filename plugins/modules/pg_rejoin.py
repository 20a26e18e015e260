#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_rejoin
short_description: Brings an old primary back as a standby, and lists what it never replicated
version_added: 0.1.0
description:
  - Runs on the host that is to come back, a former primary or a standby that was lost. It finds the current primary by
    asking every other member in C(member.json), never by the inventory.
  - Where the server holds nothing that the primary lacks, it is only started as a standby. Where it wrote on after the
    primary took over, the transactions that never replicated are listed, the diverged WAL is copied aside, and
    C(pg_rewind) undoes them.
  - A re-clone, which takes long, is only made with O(allow_reclone=true).
  - Done means that the host streams on the primary's timeline through its own slot, seen from both sides.
  - It can be killed at any moment and run again, C(pg_rewind) included, which is repeated from what was kept.
  - It does not set C(synchronous_standby_names) on the primary; M(hms.postgres.pg_primary) does.
options:
  config_directory:
    description: The directory with this host's C(member.json).
    type: path
    required: true
  allow_reclone:
    description:
      - Copy the primary anew where C(pg_rewind) cannot work, because the WAL it needs is gone for instance.
      - The old data directory is kept beside the new one, so there must be room for both.
    type: bool
    default: false
  allow_stop:
    description:
      - Stop the server on this host although it takes writes, when another member is a primary too.
      - Not needed where a failover fenced this host.
    type: bool
    default: false
  asked_by:
    description: Who asked, for the record.
    type: str
    default: ""
  stream_timeout:
    description: Seconds to wait until the standby streams. Replay after a crash counts in.
    type: int
    default: 120
  checkpoint_timeout:
    description:
      - Seconds to wait for the primary's first checkpoint after its promotion; C(pg_rewind) believes its control file.
      - The default is a little more than PostgreSQL's own C(checkpoint_timeout).
    type: int
    default: 330
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: partial
    details:
      - Where a server must be stopped before it can be compared, check mode says so and shows no further.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
seealso:
  - module: hms.postgres.pg_standby
  - module: hms.postgres.pg_primary
  - module: hms.postgres.pg_failover
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: The old primary comes back as a standby
  hms.postgres.pg_rejoin:
    config_directory: /etc/hms-postgres/hospital

- name: The same, with a new copy where its WAL is gone
  hms.postgres.pg_rejoin:
    config_directory: /etc/hms-postgres/hospital
    allow_reclone: true
"""

RETURN = r"""
primary:
  description: The member that is the primary and that this host follows.
  returned: success
  type: str
  sample: db2
case:
  description:
    - What was found. V(streaming) needs nothing, V(follow) runs as a standby but not rightly, V(start) holds nothing
      that the primary lacks, V(rewind) wrote on, V(resume) and V(rewound) are left from a killed run, V(reclone) is
      copied anew; V(second_primary), V(diverged_standby) and V(rewind_running) occur in check mode only.
  returned: success
  type: str
  sample: rewind
message:
  description: One sentence for people.
  returned: success
  type: str
  sample: db1 is a standby of db2 and streams. 3 transactions never replicated; they are listed.
plan:
  description: What was done, or would be done in check mode, with the reason for each.
  returned: success
  type: list
  elements: str
  sample:
    - create the slot db1 on db2 (the primary must keep the WAL from now on)
lost_transactions:
  description: How many committed transactions never replicated; none where nothing was compared or it is unknown.
  returned: success
  type: int
  sample: 3
kept_directory:
  description: Where the diverged WAL, pg_control, the settings and C(dossier.json) are kept.
  returned: success
  type: str
  sample: /var/lib/hms-postgres/hospital/diverged/20261122T160000Z-rejoin-3fa9
old_data_directory:
  description: Where the old data directory was kept, if a new copy took its place.
  returned: success
  type: str
  sample: ""
record:
  description:
    - The operation's record, with its steps, and under C(losses) every lost transaction (the first 10,000) with its
      time and the tables it changed. Empty where nothing was done.
    - Where the module fails after it began, the record is in C(details.record).
  returned: success
  type: dict
  sample:
    id: 20261122T160000Z-rejoin-3fa9
    operation: rejoin
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: two_primaries
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Run again with -e allow_reclone=true.
"""

import functools

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin import Rejoin, Request
from ansible_collections.hms.postgres.plugins.module_utils._cluster.rejoin_apply import Patience
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._provision.reclone import reclone


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "config_directory": {"type": "path", "required": True},
            "allow_reclone": {"type": "bool", "default": False},
            "allow_stop": {"type": "bool", "default": False},
            "asked_by": {"type": "str", "default": ""},
            "stream_timeout": {"type": "int", "default": 120},
            "checkpoint_timeout": {"type": "int", "default": 330},
        },
        supports_check_mode=True,
    )
    request = Request(
        config_directory=module.params["config_directory"],
        by=module.params["asked_by"],
        allow_reclone=module.params["allow_reclone"],
        allow_stop=module.params["allow_stop"],
        patience=Patience(module.params["stream_timeout"], module.params["checkpoint_timeout"]),
    )
    runner, clock = SystemRunner(), SystemClock()
    recloner = functools.partial(reclone, runner=runner, clock=clock)
    rejoin = Rejoin(request, recloner=recloner, runner=runner, clock=clock)
    _module.run(module, lambda: rejoin.ensure(check_mode=module.check_mode))


if __name__ == "__main__":
    main()
