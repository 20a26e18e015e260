# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter `hms.postgres.backup_policy`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: backup_policy
short_description: Checks what backup.json is to hold
version_added: 0.1.0
description:
  - Returns what it is given when the jobs on the hosts will understand it, and says what is wrong when they won't.
    So a mistake in a schedule, a store or a retention is told when it is made, and not at night.
options:
  _input:
    description: What M(hms.postgres.pg_backup) takes, and beside it C(schedule), C(notify) and C(metrics).
    type: dict
    required: true
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Write the policy
  ansible.builtin.copy:
    content: "{{ policy | hms.postgres.backup_policy | to_nice_json }}\n"
    dest: /etc/hms-postgres/hospital/backup.json
    mode: "0600"
  no_log: true
"""

RETURN = r"""
_value:
  description: What was given.
  type: dict
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.module_utils._backup.notify import notify_from
from ansible_collections.hms.postgres.plugins.module_utils._backup.policy import DRILL_OWN, parse
from ansible_collections.hms.postgres.plugins.module_utils._drill.arguments import DRILL
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError


def plain(value: t.Any) -> t.Any:
    """The same without the types that Ansible gives to texts, lists and mappings of templates."""
    if isinstance(value, t.Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return str(value) if isinstance(value, str) else value


def backup_policy(data: t.Any) -> t.Any:
    """What was given, when it can be used."""
    known = plain(data)
    try:
        policy = parse(known)
        notify_from(policy.notify)
    except HmsError as error:
        raise AnsibleFilterError(error.full_text()) from error
    unknown = sorted(set(policy.drill) - DRILL_OWN - set(DRILL))
    if unknown:
        raise AnsibleFilterError(f"drill: pg_restore_drill has no argument {', '.join(unknown)}. Nothing was touched.")
    return known


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"backup_policy": backup_policy}
