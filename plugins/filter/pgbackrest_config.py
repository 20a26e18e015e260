# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter `hms.postgres.pgbackrest_config`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: pgbackrest_config
short_description: pgBackRest's configuration file for one instance
version_added: 0.1.0
description:
  - Makes the file from what the role P(hms.postgres.backup#role) knows. It holds secrets.
  - Repositories have the shape of the stores of M(hms.postgres.pg_backup), C(folder) or C(s3).
  - What would let backups be lost unseen is refused, for instance C(archive-push-queue-max).
options:
  _input:
    description:
      - C(stanza), C(repositories), C(passphrase), C(data_directory), C(port), C(socket_directory), C(process_max),
        C(compress_level), C(log_directory), C(lock_directory), C(spool_directory), and C(options), which are
        added to the section C(global).
    type: dict
    required: true
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: Write the file
  ansible.builtin.copy:
    content: "{{ settings | hms.postgres.pgbackrest_config }}"
    dest: /etc/hms-postgres/hospital/pgbackrest.conf
    owner: postgres
    mode: "0600"
  no_log: true
"""

RETURN = r"""
_value:
  description: The file's text.
  type: str
"""

import typing as t

from ansible.errors import AnsibleFilterError

from ansible_collections.hms.postgres.plugins.module_utils._backup.pgbackrest_config import render
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError


def pgbackrest_config(data: t.Mapping[str, t.Any]) -> str:
    """The file's text."""
    try:
        return render(data)
    except HmsError as error:
        raise AnsibleFilterError(error.full_text()) from error


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"pgbackrest_config": pgbackrest_config}
