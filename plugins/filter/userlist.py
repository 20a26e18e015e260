# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
name: userlist
short_description: A line of PgBouncer's userlist.txt
version_added: 0.1.0
description:
  - Makes the line by which PgBouncer itself logs in as a role, with quotes doubled.
  - What cannot stand in PgBouncer's C(auth_file), a line's end for instance, is refused.
options:
  _input:
    description: The password.
    type: str
    required: true
  user:
    description: The role.
    type: str
    required: true
positional: user
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Write the file
  ansible.builtin.copy:
    content: "{{ postgresql_monitor_password | hms.postgres.userlist('hms_monitor') }}\n"
    dest: /etc/hms-postgres/hospital/file
    mode: "0600"
  no_log: true
"""

RETURN = r"""
_value:
  description: The line, without its end.
  type: str
  sample: '"hms_pgbouncer" "secret"'
"""

import typing as t

from ansible.errors import AnsibleFilterError


def userlist(password: str, user: str) -> str:
    """The line."""
    return " ".join(_quoted(_checked(text)) for text in (user, password))


def _quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def _checked(text: str) -> str:
    if not text or any(character in text for character in "\n\r\0"):
        raise AnsibleFilterError("A role and its password are neither empty nor longer than a line.")
    return text


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"userlist": userlist}
