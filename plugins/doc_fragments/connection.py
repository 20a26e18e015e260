# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How a connection to a server is proven and protected."""

from __future__ import annotations


class ModuleDocFragment:
    """`hms.postgres.connection`"""

    DOCUMENTATION = r"""
options:
  login_password:
    description: Its password. It is handed on in the environment, never in an argument.
    type: str
  login_passfile:
    description: A password file of libpq's that O(os_user) can read.
    type: path
  ssl_mode:
    description: Whether the connection is encrypted and the server's certificate is checked. Libpq's C(sslmode).
    type: str
    choices: [disable, allow, prefer, require, verify-ca, verify-full]
  ssl_root_cert:
    description: The certificates of the authorities that the server's certificate is checked against.
    type: path
"""
