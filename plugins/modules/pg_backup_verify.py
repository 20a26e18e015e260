#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup_verify
short_description: Proves backups that exist, by reading or by restoring them
version_added: 0.1.0
description:
  - At O(level=read) what is stored is read back, its checksum compared, decrypted, decompressed and parsed to its end.
  - At O(level=deep) it is also restored into a scratch database on the server, which is dropped again, and the number
    of rows of every table is compared with what was counted when the backup was made.
  - Where the host has no key that opens a backup, only the stored bytes are compared. The result then says what could
    not be looked at, and earlier proofs go on counting.
  - pgBackRest's backups are read by pgBackRest itself, and its WAL archive is searched for holes.
  - The result is written beside the backup and counts from then on. A backup that doesn't hold isn't counted as
    verified any more, and this module fails.
options:
  config_directory:
    description:
      - The folder on the managed host in which the role hms.postgres.backup keeps C(backup.json).
        Stores, server and passphrase are then those of the host. Options given here come first.
      - One of this and O(cluster) is needed.
    type: path
  cluster:
    description: The cluster's name, where O(config_directory) isn't given.
    type: str
  database:
    description: Only the backups of this database. By default those of all.
    type: str
  id:
    description: The one backup to verify.
    type: str
  which:
    description:
      - Which backups to verify where O(id) isn't given, the V(newest) of each database, engine and type,
        those that are V(unverified), or V(all).
    type: str
    choices: [newest, unverified, all]
    default: newest
  level:
    description: How they are verified.
    type: str
    choices: [read, deep]
    default: read
  stores:
    description: The kinds of stores in which to verify.
    type: list
    elements: str
    choices: [folder, s3, pgbackrest]
    default: [folder, s3, pgbackrest]
  encryption:
    description: What opens the backups, where the host's own C(backup.json) doesn't hold it.
    type: dict
    suboptions:
      key_files:
        description: Files on the managed host with private keys. They go into a keyring of the run's own, on a tmpfs.
        type: list
        elements: path
        default: []
      passphrase:
        description: The passphrase of the backups, or of the private keys.
        type: str
      passphrase_file:
        description: A file on the managed host that holds the passphrase, and that others can't read.
        type: path
  login_host:
    description: The server for O(level=deep), its name, its address or the folder of its socket.
    type: str
  login_port:
    description: The server's port.
    type: int
  login_user:
    description: A role that may create databases.
    type: str
  os_user:
    description: The operating system's user that connects and that PostgreSQL's programs run as.
    type: str
  staging_dir:
    description:
      - The folder in which backups in the directory format are unpacked, unencrypted, for O(level=deep). It must be on
        the managed host, belong to O(os_user) alone (mode 0700) and have the room. By default that of the host's jobs.
    type: path
  state_dir:
    description: The folder for locks; by default C(/var/lib/hms-postgres/) and the cluster's name.
    type: path
  timeout:
    description: Seconds for the whole.
    type: float
    default: 86400.0
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Says which backups would be verified.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
  idempotent:
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: none
    details:
      - Each run proves them anew and notes when.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - pg_restore of the backup's PostgreSQL version or a newer one (postgresql-client-15)
  - zstd or lz4, and gpg with python-gnupg (python3-gnupg), where the backups need them
  - boto3 (python3-boto3) for O(store.s3)
  - psycopg >= 3.1 (python3-psycopg) for O(level=deep)
seealso:
  - module: hms.postgres.pg_backup
  - module: hms.postgres.pg_backup_info
author:
  - the hms.postgres authors (@hms-postgres)
extends_documentation_fragment:
  - hms.postgres.backup_store
  - hms.postgres.pgbackrest
"""

EXAMPLES = r"""
- name: Read the newest backups of this host's jobs to their end
  hms.postgres.pg_backup_verify:
    config_directory: /etc/hms-postgres/hospital

- name: Restore one of them, with the private key that is kept apart
  hms.postgres.pg_backup_verify:
    config_directory: /etc/hms-postgres/hospital
    id: 20261122T020000Z-backup-3fa9
    level: deep
    encryption:
      key_files: [/run/keys/escrow.asc]
      passphrase: "{{ vault_escrow_passphrase }}"
"""

RETURN = r"""
planned:
  description: What is verified, or would be in check mode.
  returned: success
  type: list
  elements: dict
  sample: [{id: 20261122T020000Z-backup-3fa9, store: /srv/backups, level: read}]
results:
  description: What came out, for each backup in each store. After a failure it is in C(details.results).
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The backup's id.
      returned: success
      type: str
      sample: 20261122T020000Z-backup-3fa9
    store:
      description: The store in which it was verified.
      returned: success
      type: str
      sample: /srv/backups
    verification:
      description: The verification as it was noted.
      returned: success
      type: dict
      sample: {level: deep, ok: true, seconds: 41.2, entries: 212, rows_compared: 31, problems: [], partial: ''}
problems:
  description: What isn't as it should be in the catalog, as M(hms.postgres.pg_backup_info) tells it.
  returned: success
  type: list
  elements: dict
  sample: []
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: verification_failed
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: 1 of 3 don't hold and don't count as verified any more.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Make a new backup now, and look at the store.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._artifact.arguments import ENCRYPTION, STORE
from ansible_collections.hms.postgres.plugins.module_utils._backup.arguments import BACKUP
from ansible_collections.hms.postgres.plugins.module_utils._backup.reverify import verify
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner

KINDS = ["folder", "s3", "pgbackrest"]
OPENS = {name: spec for name, spec in ENCRYPTION["encryption"]["options"].items() if name != "recipients"}


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "config_directory": {"type": "path"},
            "cluster": {"type": "str"},
            "database": {"type": "str"},
            "id": {"type": "str"},
            "which": {"type": "str", "choices": ["newest", "unverified", "all"], "default": "newest"},
            "level": {"type": "str", "choices": ["read", "deep"], "default": "read"},
            "stores": {"type": "list", "elements": "str", "choices": KINDS, "default": KINDS},
            "encryption": {"type": "dict", "options": OPENS},
            "pgbackrest": BACKUP["pgbackrest"],
            "login_host": {"type": "str"},
            "login_port": {"type": "int"},
            "login_user": {"type": "str"},
            "os_user": {"type": "str"},
            "staging_dir": {"type": "path"},
            "state_dir": {"type": "path"},
            "timeout": {"type": "float", "default": 86400.0},
            **STORE,
        },
        mutually_exclusive=[("config_directory", name) for name in ("cluster", "store", "pgbackrest")],
        required_one_of=[("config_directory", "cluster")],
        supports_check_mode=True,
    )
    runner, clock = SystemRunner(), SystemClock()
    _module.run(module, lambda: verify(module.params, check_mode=module.check_mode, runner=runner, clock=clock))


if __name__ == "__main__":
    main()
