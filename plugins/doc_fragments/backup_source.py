# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Options that say which server a backup comes from."""

from __future__ import annotations


class ModuleDocFragment:
    """`hms.postgres.backup_source`"""

    DOCUMENTATION = r"""
options:
  login_host:
    description: The server's host name or address, or the folder of its socket.
    type: str
    default: /var/run/postgresql
  login_port:
    description: The server's port.
    type: int
    default: 5432
  login_user:
    description: The role that reads. It needs SELECT on everything; C(pg_read_all_data) is enough.
    type: str
    default: postgres
  os_user:
    description:
      - The operating system's user that connects and that PostgreSQL's programs run as.
        An empty string means the one that runs the module.
    type: str
    default: postgres
"""
