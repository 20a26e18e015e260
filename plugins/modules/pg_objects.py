#!/usr/bin/python
# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

from __future__ import annotations

DOCUMENTATION = r"""
module: pg_objects
short_description: Brings roles, databases and rights to what is declared
version_added: 0.1.0
description:
  - Takes all roles and databases of an instance as one declaration, compares it with the catalogs and does what lacks.
  - Works over the instance's local socket, by peer authentication as the operating system's user O(os_user).
  - Passwords are turned into SCRAM-SHA-256 verifiers before they reach the server. They stand in no statement and in
    no log, and one that is set already is left alone.
  - Attributes of declared roles, and the groups that they belong to, are exactly the declared ones.
  - Nobody may connect to a declared database who isn't named. In its schemas only its owner makes objects.
    Writers and readers get their rights on what the owner has made and will make.
  - Rights that somebody granted to roles not declared here stay. So do those on a table on which a role has any right
    already, which leaves room to take single rights away.
  - Each declared database gets the support schema C(hms), with a table for write probes and the function by which
    PgBouncer asks for verifiers. The function gives none of superusers and replication roles.
  - Does nothing on a standby, which gets all of this by replication.
options:
  port:
    description: The instance's port, which is part of the socket's name.
    type: int
    default: 5432
  socket_directory:
    description: Where the server's socket is.
    type: path
    default: /var/run/postgresql
  os_user:
    description: The operating system's user to connect as. The superuser has the same name.
    type: str
    default: postgres
  maintenance_database:
    description:
      - The database to connect to first. Functions of the whole cluster (O(roles[].execute)) are granted in it.
    type: str
    default: postgres
  roles:
    description: The roles. A superuser cannot be declared; attributes that aren't options here are off.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The role's name.
        type: str
        required: true
      password:
        description:
          - The password. When it isn't given, the role's password is left as it is.
        type: str
      login:
        description: Whether it may log in.
        type: bool
        default: true
      replication:
        description: Whether it may stream WAL.
        type: bool
        default: false
      connection_limit:
        description: How many connections it may have at once; V(-1) is no limit.
        type: int
        default: -1
      member_of:
        description: The roles of which it is a member.
        type: list
        elements: str
        default: []
      execute:
        description:
          - Functions that it may call although not everybody may, each as C(schema.name(type,type\\)).
        type: list
        elements: str
        default: []
  databases:
    description: The databases.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: The database's name.
        type: str
        required: true
      owner:
        description: The role that owns it and makes its objects.
        type: str
        required: true
      writers:
        description: Roles that may read and change data.
        type: list
        elements: str
        default: []
      readers:
        description: Roles that may read data.
        type: list
        elements: str
        default: []
      monitor:
        description: The role that may write probes.
        type: str
      pooler:
        description: The role by which PgBouncer asks for verifiers.
        type: str
      schemas:
        description: Schemas that the owner's objects are in. Created when they aren't there.
        type: list
        elements: str
        default: [public]
      extensions:
        description: Extensions to create in it.
        type: list
        elements: str
        default: []
      encoding:
        description: The encoding of a new database.
        type: str
        default: UTF8
      locale:
        description: The locale of a new database.
        type: str
        default: C.UTF-8
attributes:
  check_mode:
    description: Can run in check_mode and return changed status prediction without modifying target.
    support: full
    details:
      - Where no server answers yet, the plan is that for a new, empty instance, with a warning.
  diff_mode:
    description: Will return details on what has changed (or possibly needs changing in check_mode), when in diff mode.
    support: full
    details:
      - The diff holds what is done and why. It never holds a password or a verifier.
  platform:
    description: Target OS/families that can be operated against.
    platforms: posix
    support: full
requirements:
  - psycopg >= 3.1 (Debian's package python3-psycopg)
seealso:
  - module: hms.postgres.pg_instance
author:
  - the hms.postgres authors (@hms-postgres)
"""

EXAMPLES = r"""
- name: A database with the three roles that it needs
  hms.postgres.pg_objects:
    roles:
      - name: hospital_owner
        password: "{{ vault_owner_password }}"
      - name: hospital_app
        password: "{{ vault_app_password }}"
      - name: hospital_readonly
        password: "{{ vault_readonly_password }}"
        connection_limit: 20
    databases:
      - name: hospital
        owner: hospital_owner
        writers: [hospital_app]
        readers: [hospital_readonly]

- name: A role for pg_rewind and streaming
  hms.postgres.pg_objects:
    roles:
      - name: hms_replication
        password: "{{ vault_replication_password }}"
        replication: true
        execute:
          - pg_catalog.pg_ls_dir(text,boolean,boolean)
          - pg_catalog.pg_stat_file(text,boolean)
          - pg_catalog.pg_read_binary_file(text)
          - pg_catalog.pg_read_binary_file(text,bigint,bigint,boolean)
"""

RETURN = r"""
actions:
  description: What was done, or would be done in check mode, and why. Statements that set passwords are left out.
  returned: success
  type: list
  elements: dict
  contains:
    id:
      description: The kind of action.
      returned: success
      type: str
      sample: grant_database
    database:
      description: The database in which it is done.
      returned: success
      type: str
      sample: postgres
    what:
      description: What is done.
      returned: success
      type: str
      sample: grant CONNECT on the database hospital to hospital_readonly
    why:
      description: Why it is done.
      returned: success
      type: str
      sample: it is declared
    statements:
      description: The statements, empty where they hold a verifier.
      returned: success
      type: list
      elements: str
      sample: ['GRANT CONNECT ON DATABASE "hospital" TO "hospital_readonly"']
skipped_because:
  description: Why nothing was planned at all, null when something could have been.
  returned: success
  type: str
  sample: "This instance is a standby: roles and databases come from its primary."
reason:
  description: A word for the kind of failure that programs may switch on.
  returned: failure
  type: str
  sample: unknown_role
state:
  description: What state the system is in after the failure.
  returned: failure
  type: str
  sample: Nothing was touched.
next_step:
  description: What to do about the failure.
  returned: failure
  type: str
  sample: Declare it, or correct the name.
"""

from ansible.module_utils.basic import AnsibleModule

from ansible_collections.hms.postgres.plugins.module_utils import _module
from ansible_collections.hms.postgres.plugins.module_utils._provision.objects import objects_manager, wish_from_params

NAMES = {"type": "list", "elements": "str", "default": []}
ROLE = {
    "name": {"type": "str", "required": True},
    "password": {"type": "str", "no_log": True},
    "login": {"type": "bool", "default": True},
    "replication": {"type": "bool", "default": False},
    "connection_limit": {"type": "int", "default": -1},
    "member_of": NAMES,
    "execute": NAMES,
}
DATABASE = {
    "name": {"type": "str", "required": True},
    "owner": {"type": "str", "required": True},
    "writers": NAMES,
    "readers": NAMES,
    "monitor": {"type": "str"},
    "pooler": {"type": "str"},
    "schemas": {"type": "list", "elements": "str", "default": ["public"]},
    "extensions": NAMES,
    "encoding": {"type": "str", "default": "UTF8"},
    "locale": {"type": "str", "default": "C.UTF-8"},
}


def main() -> None:
    """Read the arguments, do the work, report."""
    module = AnsibleModule(
        argument_spec={
            "port": {"type": "int", "default": 5432},
            "socket_directory": {"type": "path", "default": "/var/run/postgresql"},
            "os_user": {"type": "str", "default": "postgres"},
            "maintenance_database": {"type": "str", "default": "postgres"},
            "roles": {"type": "list", "elements": "dict", "default": [], "options": ROLE},
            "databases": {"type": "list", "elements": "dict", "default": [], "options": DATABASE},
        },
        supports_check_mode=True,
    )
    params = module.params
    manager = objects_manager(
        host=params["socket_directory"],
        port=params["port"],
        os_user=params["os_user"],
        maintenance_database=params["maintenance_database"],
    )
    _module.run(module, lambda: manager.ensure(wish_from_params(params), check_mode=module.check_mode))


if __name__ == "__main__":
    main()
