#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_restore_drill
short_description: Restores the newest backups on a throwaway instance, proves and times them, and notes the result
version_added: 0.1.0
description:
  - The newest full backup by pg_dump of each database is restored as M(hms.postgres.pg_restore_safe) would, on an
    instance that is made for it with initdb and removed afterwards. Roles that the original cluster had are made
    first, without a password and without the right to log in. Then the backup is loaded, counted and checked as for a
    real restore.
  - The newest backup in each pgBackRest repository is restored into a folder of its own and recovered to the end of
    the archive, so that the WAL is proven too. Every database is connected to and checked, every table read, and every
    page whose cluster has checksums. Archiving is off, so nothing is written to the repository but the result.
  - Then O(assertions) are asked, and where there is one an application by Django (O(django)).
  - The instance is reached by its own sockets alone. The servers of the host are not touched, so any host will do that
    gets at the stores, opens the backups, and has PostgreSQL's server of the same major version installed.
  - The result is written beside the backup, so that M(hms.postgres.pg_backup_info) shows when it was proven
    restorable. A backup that is damaged counts as verified no more. A failure that may be this host's own, such as a
    missing extension, is told and not held against the backup.
  - It tells how long each phase took, how long a restore of the database as large as it is today would take, and how
    old what came back is.
  - What a killed run left is known by a marker, and removed by the next one.
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
  environment:
    description:
      - The environment of the host on which the drill runs. By default the one of C(backup.json).
        What was backed up in V(production) is not restored elsewhere without O(allow_phi).
    type: str
  databases:
    description:
      - Only the backups of these. By default those of every database that has any.
        Nothing is restored where one of them has none.
      - A backup by pgBackRest holds all databases; it belongs to the one that it is listed under.
    type: list
    elements: str
    default: []
  engines:
    description: Whose backups are restored.
    type: list
    elements: str
    choices: [pg_dump, pgbackrest]
    default: [pg_dump, pgbackrest]
  recover_to:
    description:
      - How far a backup by pgBackRest is recovered. V(archive_end) replays all WAL that the archive holds, and fails
        where a segment of it is missing or damaged. V(consistent) stops as soon as the backup is whole.
    type: str
    choices: [archive_end, consistent]
    default: archive_end
  jobs:
    description:
      - How many jobs restore, as in M(hms.postgres.pg_restore_safe), and how many processes of pgBackRest. Where
        several are asked for, a dump is staged in O(directory), in a file without a name.
    type: int
  assertions:
    description: Questions to the restored databases. They are asked in a transaction that only reads.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: What it is about.
        type: str
        required: true
      database:
        description: The database that is asked. By default each.
        type: str
      sql:
        description: The question. The first column of the first row is the answer.
        type: str
        required: true
      expect:
        description: The answer that it must give.
        type: raw
        default: true
  allow_phi:
    description: Whether patients' data from production may come to a host of another environment for the drill.
    type: bool
    default: false
  django:
    description:
      - A Django application that is asked about what came back, by C(manage.py check) and C(manage.py migrate --plan).
        Migrations that the backup lacks are told. An application that is broken fails the drill, and is not held
        against the backup.
      - It gets to the throwaway instance by a socket of its own, as a role that may read and nothing else (PostgreSQL
        14 and newer). That it was there is read in the server's log. Settings that name another server in place of
        what they are given are found out by that, but not kept from it.
    type: dict
    suboptions:
      directory:
        description: Where C(manage.py) is.
        type: path
        required: true
      os_user:
        description: The operating system's user that it runs as. Not root, and better not the server's own.
        type: str
        required: true
      python:
        description: The application's interpreter.
        type: path
        default: /usr/bin/python3
      settings:
        description: The value of C(DJANGO_SETTINGS_MODULE), where C(manage.py) doesn't say it.
        type: str
        default: ""
      url_variable:
        description:
          - The variable of the environment that gets the database's URL. C(PGHOST), C(PGPORT), C(PGUSER) and
            C(PGDATABASE) are set as well.
        type: str
        default: DATABASE_URL
      environment_file:
        description:
          - A file with more variables, C(NAME=value) a line, such as the application's own for systemd. Only root need
            be able to read it. What it holds is passed in the environment and never told.
        type: path
      database:
        description: Whose application it is. By default the C(database) of C(backup.json).
        type: str
  directory:
    description:
      - Where the throwaway instance is made. The folder is its own, is made if it is missing, and is removed at the
        end. It needs room for the largest of the databases, or for the whole instance where pgBackRest's backups come
        back. By default C(/var/lib/postgresql/hms-drill-) and the
        cluster's name.
    type: path
  settings:
    description:
      - Settings of the throwaway server, for times like those of the real one. It syncs to disk as that does.
    type: dict
    default: {}
  state_dir:
    description:
      - The folder for locks and records on the managed host; by default C(/var/lib/hms-postgres/), cluster.
    type: path
  timeout:
    description: Seconds for the whole.
    type: float
    default: 86400.0
  login_host:
    description:
      - The live server's host name or address, or the folder of its socket. It is only asked how large the databases
        are today. Where it does not answer, the size at the time of the backup is taken.
    type: str
  login_port:
    description: The live server's port.
    type: int
  login_user:
    description: A role that may connect to it.
    type: str
  os_user:
    description:
      - The operating system's user that the throwaway server and PostgreSQL's programs run as, by default
        V(postgres). An empty string means the one that runs the module, which can't be root.
    type: str
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Says which backups would be restored, and whether the programs for it are there.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: none
  idempotent:
    description: >-
      When run twice in a row outside check mode, with the same arguments, the second invocation indicates no change.
    support: none
    details:
      - Each run proves the backups anew and notes when.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - pgBackRest, with a configuration that gets at the repository, for its backups
  - psycopg >= 3.1 (Debian's package python3-psycopg)
  - PostgreSQL's server of the backup's own major version (postgresql-15)
  - zstd or lz4, and gpg with python-gnupg (python3-gnupg), where the backup needs them
  - boto3 (python3-boto3) for O(store.s3)
  - setpriv (util-linux)
seealso:
  - module: hms.postgres.pg_restore_safe
  - module: hms.postgres.pg_backup_verify
author:
  - the hms.postgres authors (@hms-postgres)
extends_documentation_fragment:
  - hms.postgres.backup_encryption
  - hms.postgres.backup_store
  - hms.postgres.connection
  - hms.postgres.pgbackrest
"""

EXAMPLES = r"""
- name: Which backups a drill would restore
  hms.postgres.pg_restore_drill:
    config_directory: /etc/hms-postgres/hospital
  check_mode: true

- name: The newest backups, restored on this host and thrown away
  hms.postgres.pg_restore_drill:
    config_directory: /etc/hms-postgres/hospital
    encryption:
      key_files: [/run/keys/escrow.asc]
    assertions:
      - name: there are appointments of this week
        database: hospital
        sql: SELECT count(*) > 0 FROM appointments WHERE starts > now() - interval '7 days'
    settings:
      shared_buffers: 256MB
  register: drill

- name: The newest backup by pgBackRest, all WAL after it, and what the application says of the result
  hms.postgres.pg_restore_drill:
    config_directory: /etc/hms-postgres/hospital
    engines: [pgbackrest]
    jobs: 2
    django:
      directory: /srv/hospital/app
      python: /srv/hospital/venv/bin/python
      os_user: hospital
      environment_file: /etc/hospital/app.env

- name: How long a restore would take today
  ansible.builtin.debug:
    msg: "{{ drill.results | map(attribute='projected_rto_seconds') }}"
"""

RETURN = r"""
id:
  description: The id of the drill and of its record.
  returned: success, null in check mode
  type: str
  sample: 20261122T154500Z-drill-3fa9
results:
  description:
    - What came of each backup. On failure they stand in RV(details).
    - The phase C(load) is fetching, decrypting and restoring together; C(recover) is replaying WAL.
      C(restore_seconds) is everything that a restore takes, and C(projected_rto_seconds) the same in proportion to the
      size of today.
    - C(rpo_seconds) is how old what came back is. Of a dump it is the age of the dump, of pgBackRest's backup that of
      the last transaction in the archive.
    - C(present_bytes) is null where the live server could not be asked. C(label) and C(recovered) are pgBackRest's.
  returned: success
  type: list
  elements: dict
  sample:
    - database: hospital
      engine: pg_dump
      id: 20261122T020000Z-backup-3fa9
      store: folder:/srv/backups
      ok: true
      problems: []
      reason: ""
      noted: true
      seconds: {prepare: 1.9, look: 0.4, create: 0.1, load: 41.2, analyze: 2.2, validate: 3.1, properties: 0.1}
      restore_seconds: 47.1
      bytes: 402653184
      bytes_per_second: 9773135
      database_bytes: 1736000000
      present_bytes: 1790000000
      projected_rto_seconds: 48.6
      rpo_seconds: 39841.2
      label: ""
      recovered: {}
      django: {check: ok, migrations: ok, pending: [patients.0007_ward]}
      validations: [{name: contents, ok: true, detail: "9 tables, 1845 rows, 5 large objects, as in the manifest"}]
    - database: hospital
      engine: pgbackrest
      id: 20261122T120000Z-backup-9c41
      store: pgbackrest hospital repo1
      ok: true
      problems: []
      reason: ""
      noted: true
      seconds: {prepare: 0.1, load: 62.3, recover: 8.8, validate: 21.0, checksums: 9.4}
      restore_seconds: 71.1
      bytes: 512303104
      bytes_per_second: 8223163
      database_bytes: 1801000000
      present_bytes: 1855000000
      projected_rto_seconds: 73.0
      rpo_seconds: 48.7
      label: 20261118-120000F_20261122-120000I
      recovered:
        to: archive_end
        lsn: 3/9A000000
        timeline: 2
        segment: "000000010000000300000099"
        last_transaction: "2026-11-22T15:44:11.300Z"
      django: {check: ok, migrations: ok, pending: []}
      validations: [{name: checksums, database: "", ok: true, detail: 219872 pages hold}]
planned:
  description: In check mode, what would be restored, with what speaks against it.
  returned: success
  type: list
  elements: dict
  sample:
    - database: hospital
      engine: pg_dump
      id: 20261122T020000Z-backup-3fa9
      store: folder:/srv/backups
      bytes: 402653184
      database_bytes: 1736000000
      version: 15
      directory: /var/lib/postgresql/hms-drill-hospital
      problem: ""
leftovers:
  description: Whether an earlier run had left its instance, which was removed.
  returned: success
  type: bool
  sample: false
record:
  description: The record's file on the managed host.
  returned: success, null in check mode
  type: str
  sample: /var/lib/hms-postgres/hospital/records/20261122T154500Z-drill-3fa9.json
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: drill_failed
phase:
  description: The step that failed.
  returned: failure
  type: str
  sample: restore
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: The databases of this host were not touched. 1 of 2 backups did not come back.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Look at the problem, make a new backup, and run the drill again.
details:
  description: The results of the drill, and its record, as on success.
  returned: failure
  type: dict
  sample: {id: 20261122T154500Z-drill-3fa9, results: []}
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._drill.arguments import DRILL
from ansible_collections.hms.postgres.plugins.module_utils._drill_work import work


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec=DRILL, required_one_of=[("config_directory", "cluster")], supports_check_mode=True
    )
    _module.run(module, lambda: work(module.params, check_mode=module.check_mode))


if __name__ == "__main__":
    main()
