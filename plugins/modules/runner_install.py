#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: runner_install
short_description: Puts this collection's on-host runner on a host
version_added: 0.1.0
description:
  - Packs the code that works on database and bouncer hosts into one zip file that Python runs,
    and copies it to the host.
    The host's own jobs (the start guard in front of PostgreSQL, timers) run it without Ansible.
  - The same code makes the same file, so a second run changes nothing.
  - The directory must exist, except in check mode.
options:
  path:
    description: Where the file goes.
    type: path
    default: /usr/lib/hms-postgres/hms-postgres.pyz
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - The difference of two zip files is shown by their checksums.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
  action:
    description: Has a corresponding action plugin, so some parts of it are executed on the controller.
    support: full
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Install the runner
  hms.postgres.runner_install:
"""

RETURN = r"""
path:
  description: Where the file is.
  returned: success
  type: str
  sample: /usr/lib/hms-postgres/hms-postgres.pyz
checksum:
  description: The SHA-1 checksum of the file, as M(ansible.builtin.stat) shows it.
  returned: success
  type: str
  sample: da39a3ee5e6b4b0d3255bfef95601890afd80709
"""
