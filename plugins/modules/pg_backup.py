#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_backup
short_description: Makes a backup that is whole, verified, encrypted and catalogued, or none at all
version_added: 0.1.0
description:
  - Makes one backup of a database (O(engine=pg_dump)) or of a whole instance (O(engine=pgbackrest)).
  - With O(engine=pg_dump) the dump flows through compression and GPG straight into the store. There is no plaintext on
    a disk, no temporary copy, and the memory needed is the same for any size. Only O(format=directory) is different.
  - All tables are locked against change of their structure before the snapshot is taken, so that what runs meanwhile
    (a C(TRUNCATE), a migration) cannot make a table look empty.
  - Every program's exit code is judged. Then what was stored is read back, decrypted, decompressed and parsed to its
    end. The manifest, which makes the objects a backup, is written last.
  - When anything fails, no manifest is written, what was stored of this backup is removed, and earlier backups stay as
    they are. The message names the stage that failed.
  - Afterwards old backups are removed as O(retention) says, never the last verified one.
options:
  cluster:
    description: The cluster's name, the first part of every key in the store.
    type: str
    required: true
  environment:
    description: The environment's name, which is noted in the manifest.
    type: str
    required: true
  database:
    description: The database's name.
    type: str
    required: true
  engine:
    description:
      - What makes the backup. V(pg_dump) needs a connection and client programs only.
        V(pgbackrest) needs to run on the database's host, and allows recovery to any moment.
    type: str
    choices: [pg_dump, pgbackrest]
    default: pg_dump
  type:
    description:
      - What is backed up. V(full) is everything; V(schema_only) and V(data_only) are for V(pg_dump);
        V(differential) and V(incremental) are for V(pgbackrest).
    type: str
    choices: [full, schema_only, data_only, differential, incremental]
    default: full
  format:
    description:
      - The format of the dump with O(engine=pg_dump).
      - V(custom) is what C(pg_restore) reads, whole or in parts, in parallel.
      - V(plain) is an SQL script. It runs whatever is in it when it is restored, so it is only made when asked for.
      - V(directory) is dumped by several workers at once, O(jobs), from the one snapshot. C(pg_dump) writes it to
        O(staging_dir) itself, unencrypted; from there it goes into the store as one object, a tar stream, compressed
        and encrypted as the others. The files in O(staging_dir) are removed in any case.
    type: str
    choices: [custom, directory, plain]
    default: custom
  jobs:
    description:
      - How many workers dump at the same time with O(format=directory), by default as many as there are processors, at
        most 4. Each needs a connection, and a further one is needed.
    type: int
  staging_dir:
    description:
      - The folder in which the dump lies, unencrypted, while it is made with O(format=directory). Required for that.
      - It must be on the managed host, belong to O(os_user) alone (mode 0700) and have room for the whole dump,
        uncompressed. Best is a tmpfs or an encrypted disk.
      - What is in there is removed at the end, after a failure, and when the run is killed. After a power failure, or
        when every process of the run is killed at once, the next run with this folder removes it.
    type: path
  compression:
    description: How the dump is compressed. What V(gzip) makes is read by any C(gunzip).
    type: str
    choices: [zstd, gzip, lz4, none]
    default: zstd
  compression_level:
    description: The level; by default 3 for V(zstd) and 1 for the others, which is where speed and size meet.
    type: int
  compression_threads:
    description: How many threads compress; by default as many as there are processors, at most 4.
    type: int
  retention:
    description:
      - What is kept of this database's backups of this engine and type. Each rule keeps, none removes by itself.
        Without any, everything is kept.
      - The last verified backup, what others depend on and what an object lock holds is never removed.
    type: dict
    suboptions:
      days:
        description: Everything younger than so many days.
        type: float
      keep_last:
        description: The newest so many, whatever their age.
        type: int
        default: 0
      daily:
        description: The newest of each of the last so many days.
        type: int
        default: 0
      weekly:
        description: The newest of each of the last so many weeks.
        type: int
        default: 0
      monthly:
        description: The newest of each of the last so many months.
        type: int
        default: 0
      yearly:
        description: The newest of each of the last so many years.
        type: int
        default: 0
  verify:
    description:
      - How the backup is verified before it counts as one.
      - V(read) reads back what was stored, compares its checksum, decrypts, decompresses and parses it to its end.
      - V(deep) also restores it into a scratch database on the same server, compares the number of rows of every table
        and drops the scratch database. It needs the room, and a role that may create databases.
      - V(none) skips this. Such a backup counts as unverified wherever it matters.
    type: str
    choices: [none, read, deep]
    default: read
  globals:
    description: Whether roles and tablespaces are dumped too, into an object beside the dump.
    type: bool
    default: true
  role_passwords:
    description: Whether the roles' password verifiers are among them. Only a superuser can read those.
    type: bool
    default: false
  row_counts:
    description: Whether rows are counted in the dump's own snapshot, for the manifest. They are counted meanwhile.
    type: bool
    default: true
  if_busy:
    description: What to do while another backup of the same database runs on this host.
    type: str
    choices: [refuse, wait]
    default: refuse
  wait_seconds:
    description: How long to wait for it with O(if_busy=wait).
    type: float
    default: 3600.0
  lock_timeout:
    description: Seconds to wait for a table that somebody else holds.
    type: float
    default: 30.0
  timeout:
    description: Seconds for the whole, verification included.
    type: float
    default: 86400.0
  state_dir:
    description:
      - The folder for locks and records on the managed host; by default C(/var/lib/hms-postgres/), cluster.
    type: path
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Everything is looked at and every refusal is made that a real run would make. The result says what would be
        made, where, how big and how long, as far as the last backup tells, and what retention would remove.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - The diff holds the catalog before and after.
  idempotent:
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: none
    details:
      - Each run makes a backup.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - psycopg >= 3.1 (Debian's package python3-psycopg)
  - PostgreSQL's client programs of the server's own major version (postgresql-client-15)
  - zstd or lz4, and gpg with python-gnupg (python3-gnupg), where they are asked for
  - GNU tar for O(format=directory)
  - boto3 (python3-boto3) for O(store.s3)
  - setpriv (util-linux)
seealso:
  - module: hms.postgres.pg_objects
author:
  - the hms.postgres authors (@hms-postgres)
extends_documentation_fragment:
  - hms.postgres.backup_source
  - hms.postgres.backup_encryption
  - hms.postgres.backup_store
  - hms.postgres.connection
  - hms.postgres.pgbackrest
"""

EXAMPLES = r"""
- name: A full backup that only operations and the escrow key can read
  hms.postgres.pg_backup:
    cluster: hospital
    environment: production
    database: hospital
    encryption:
      recipients: [ops@hospital.example, escrow@hospital.example]
      key_files:
        - /etc/hms-postgres/keys/ops.asc
        - /etc/hms-postgres/keys/escrow.asc
    store:
      s3:
        bucket: hospital-backups
        region: eu-central-1
    retention:
      days: 30
      keep_last: 7

- name: To a folder and a bucket at once, restored into a scratch database before it counts
  hms.postgres.pg_backup:
    cluster: hospital
    environment: staging
    database: hospital
    encryption:
      passphrase_file: /etc/hms-postgres/hospital/passphrase
    store:
      folder: /srv/backups
      s3:
        bucket: hospital-staging-backups
        endpoint_url: https://s3.hospital.example:9000
        ca_bundle: /etc/ssl/certs/hospital.pem
        addressing_style: path
    verify: deep

- name: By four workers at once, through a folder in memory
  hms.postgres.pg_backup:
    cluster: hospital
    environment: production
    database: hospital
    format: directory
    jobs: 4
    staging_dir: /run/hms-staging
    encryption:
      recipients: [ops@hospital.example]
      key_files: [/etc/hms-postgres/keys/ops.asc]
    store:
      folder: /srv/backups

- name: What would be made, how big, how long, and what would go
  hms.postgres.pg_backup:
    cluster: hospital
    environment: production
    database: hospital
    store:
      folder: /srv/backups
  check_mode: true
"""

RETURN = r"""
id:
  description: The backup's id, which is its record's too. Sorts by time.
  returned: success
  type: str
  sample: 20261122T020000Z-backup-3fa9
plan:
  description: What was to be made.
  returned: success
  type: dict
  contains:
    members:
      description: The objects, in the order in which they are made.
      returned: success
      type: list
      elements: str
      sample: [properties.json.zst.gpg, globals.sql.zst.gpg, schema.dump.zst.gpg, data.dump.zst.gpg]
    jobs:
      description: How many workers dump.
      returned: success, with O(format=directory)
      type: int
      sample: 4
    staging_dir:
      description: The folder in which the dump lies unencrypted meanwhile.
      returned: success, with O(format=directory)
      type: str
      sample: /run/hms-staging
    stores:
      description: Where they go.
      returned: success
      type: list
      elements: str
      sample: [/srv/backups]
    estimate:
      description: Size in bytes and duration in seconds that are expected, and the backup they are computed from.
      returned: success
      type: dict
      sample: {bytes: 365000000, seconds: 8.7, based_on: 20261121T020000Z-backup-77b1}
backup:
  description: The manifest of the backup that was made.
  returned: success, null in check mode
  type: dict
  sample:
    id: 20261122T020000Z-backup-3fa9
    members: [{role: data, name: data.dump.zst.gpg, bytes: 365000000, sha256: 9f86d081884c7d65}]
    verification: {level: read, ok: true, seconds: 2.1}
removed:
  description: The older backups that retention removed, or would remove in check mode, and why.
  returned: success
  type: list
  elements: dict
  sample: [{store: /srv/backups, id: 20261022T020000Z-backup-11c0, why: not among what is kept}]
kept:
  description: The backups that stay, and why.
  returned: success
  type: list
  elements: dict
  sample: [{store: /srv/backups, id: 20261121T020000Z-backup-77b1, why: 1 day old}]
record:
  description: The record's file on the managed host.
  returned: success, null in check mode
  type: str
  sample: /var/lib/hms-postgres/hospital/records/20261122T020000Z-backup-3fa9.json
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: stage_failed
phase:
  description: The step or the program that failed.
  returned: failure
  type: str
  sample: gpg
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: No backup was made and nothing of it is left in the store.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Make room in the store, then run again.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._backup.arguments import BACKUP
from ansible_collections.hms.postgres.plugins.module_utils._backup.manager import backup
from ansible_collections.hms.postgres.plugins.module_utils._backup.wishes import wish_from
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(argument_spec=BACKUP, supports_check_mode=True)
    _module.run(
        module,
        lambda: backup(
            wish_from(module.params),
            check_mode=module.check_mode,
            runner=SystemRunner(),
            clock=SystemClock(),
            by="module pg_backup",
        ),
    )


if __name__ == "__main__":
    main()
