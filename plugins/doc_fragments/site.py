# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options of everything that looks at a whole cluster."""

from __future__ import annotations


class ModuleDocFragment:
    """`hms.postgres.site`"""

    DOCUMENTATION = r"""
options:
  cluster:
    description: The cluster's name, as every host knows it from playbooks/site.yml.
    type: str
    required: true
  environment:
    description: The environment's name. In V(production) an operation needs the cluster's name as its confirmation.
    type: str
    required: true
  databases:
    description: All database hosts of the cluster, by inventory name; a host that can't be reached is named too.
    type: list
    elements: str
    required: true
  bouncers:
    description: All PgBouncer hosts of the cluster, by inventory name.
    type: list
    elements: str
    required: true
notes:
  - Runs on the controller. M(hms.postgres.agent_line) must have been run on every host before, and its result
    registered as C(hms_agent_line), as the playbooks do.
attributes:
  action:
    description: >-
      Indicates this has a corresponding action plugin so some parts of the options can be executed on the controller.
    support: full
  async:
    description: Supports being used with the C(async) keyword.
    support: none
  platform:
    description: Target OS/families that can be operated against.
    platforms: debian
    support: full
author:
  - the hms.postgres authors (@hms-postgres)
"""

    # What is done because a host is lost, or to see whether one is: whoever is not there is not waited for.
    URGENT = r"""
options:
  greet_seconds:
    description: Seconds in which every host's agent must have answered; a host that hasn't counts as unreachable.
    type: float
    default: 6.0
"""

    # What needs every host anyway: one that is only slow is waited for, since it would be refused.
    PLANNED = r"""
options:
  greet_seconds:
    description: Seconds in which every host's agent must have answered; a host that hasn't counts as unreachable.
    type: float
    default: 20.0
"""
