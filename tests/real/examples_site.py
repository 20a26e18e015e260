# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How the examples in the modules' documentation are run: on which hosts, and what stands for the reader's names.

An example's text is what runs. Only the names of a hospital's own things (addresses, folders, the version) are
replaced, each by a variable, and options that an example leaves at a value that this machine must not have (Debian's
usual instance, port 5432) get other defaults.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import pathlib
import sys
import typing as t

import yaml

from ansible_collections.hms.postgres.tests.real import playbooks

COLLECTION = "hms.postgres."
CONFIG = {"/etc/hms-postgres/hospital": "{{ hms_config_dir }}"}
SITE = {"/var/lib/hms-postgres/records": "{{ lab_records }}", "environment: production": "staging"}
DATABASE = {"login_host": "{{ lab_sockets }}", "login_port": "{{ lab_port }}", "state_dir": "{{ lab_state }}"}
RESTORE = {
    "/run/keys/escrow.asc": "{{ lab_escrow_key }}",
    "20261122T020000Z-backup-3fa9": "{{ lab_backup }}",
    "/etc/hms-postgres/mask.sql": "{{ lab_mask }}",
}
PATIENT = {"greet_seconds": 30}
"""For agents to come up: a busy machine may be slow."""
INSTANCE = {"name": "{{ lab_instance }}", "port": "{{ lab_port }}", "data_directory": "{{ lab_data }}"}


@dataclasses.dataclass(frozen=True)
class Example:
    """The examples of one module, or some of them.

    Attributes:
        hosts: where they run.
        changed: whether each task that runs changes something.
        replace: what of the text stands for a reader's own, and the variable that takes its place.
        defaults: other defaults of options, by module.
        only: the numbers of the tasks that run; all where it is empty.
    """

    module: str
    hosts: str
    changed: tuple[bool, ...]
    replace: t.Mapping[str, str] = dataclasses.field(default_factory=dict)
    defaults: t.Mapping[str, t.Mapping[str, t.Any]] = dataclasses.field(default_factory=dict)
    only: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What its results are kept under."""
        return "_".join([self.module, *map(str, self.only)])


SCENES: dict[str, tuple[Example, ...]] = {
    "instance": (
        Example("pg_certificate", "db1", (True,)),
        Example("runner_install", "db1", (True,), defaults={"runner_install": {"path": "{{ lab_runner }}"}}),
        Example(
            "pg_instance",
            "db1",
            (True, True, True),
            {
                "version: 15": "{{ lab_version }}",
                "name: hospital": "{{ lab_clone.name }}",
                "port: 5433": "{{ lab_clone.port }}",
                "/srv/postgresql/hospital": "{{ lab_clone.data }}",
            },
            {"pg_instance": INSTANCE},
        ),
        Example(
            "pg_instance_info",
            "db1",
            (False, False),
            {"version: 15": "{{ lab_version }}"},
            {"pg_instance_info": {"name": "{{ lab_instance }}"}},
        ),
        Example("pg_objects", "db1", (True, True), defaults={"pg_objects": {"port": "{{ lab_port }}"}}),
    ),
    "backup": (
        Example(
            "pg_backup",
            "db1",
            (True, True, True, True),
            {
                "/etc/hms-postgres/keys/": "{{ lab_keys }}/",
                "/run/hms-staging": "{{ lab_staging }}",
                "/etc/hms-postgres/hospital/passphrase": "{{ lab_passphrase_file }}",
                "/srv/backups": "{{ lab_store }}",
                "https://s3.hospital.example:9000": "{{ lab_s3.endpoint_url }}",
                "/etc/ssl/certs/hospital.pem": "{{ lab_s3.ca_bundle }}",
            },
            {"pg_backup": DATABASE},
        ),
        Example("pg_backup_info", "db1", (False, False, False), CONFIG),
        Example(
            "pg_backup_verify",
            "db1",
            (True, True),
            {
                **CONFIG,
                "20261122T020000Z-backup-3fa9": "{{ example_pg_backup_0.id }}",
                "/run/keys/escrow.asc": "{{ lab_escrow_key }}",
            },
        ),
    ),
    "restore": (
        Example("pg_restore_safe", "db1", (True, True), {**CONFIG, **RESTORE}, only=(0, 1)),
        Example("pg_restore_safe", "db2", (True,), RESTORE, {"pg_restore_safe": DATABASE}, only=(2,)),
        Example("pg_restore_cleanup", "db1", (True, True), CONFIG),
        Example(
            "pg_restore_drill",
            "db1",
            (True, True, False),
            {**CONFIG, "/run/keys/escrow.asc": "{{ lab_escrow_key }}"},
            {"pg_restore_drill": {"directory": "{{ lab_drill }}"}},
            only=(0, 1, 3),
        ),
    ),
    "repository": (
        Example(
            "pgbackrest_stanza",
            "db1",
            (True,),
            {"/etc/hms-postgres/hospital/pgbackrest.conf": "{{ lab_config }}"},
            {"pgbackrest_stanza": {"port": "{{ lab_port }}", "socket_directory": "{{ lab_sockets }}"}},
        ),
    ),
    "pitr": (
        Example(
            "pg_pitr",
            "db1",
            (False, True, True, True),
            {**CONFIG, "2025-06-22 08:00:00+02": "{{ lab_since }}", "2025-06-22 12:00:00+02": "{{ lab_until }}"},
            {"pg_pitr": {"port": "{{ lab_port }}", "directory": "{{ lab_side }}"}},
        ),
        Example(
            "pg_restore_drill",
            "db1",
            (True,),
            {
                **CONFIG,
                "/srv/hospital/app": "{{ lab_app }}",
                "/srv/hospital/venv/bin/python": "/usr/bin/python3",
                "/etc/hospital/app.env": "{{ lab_app }}/app.env",
                "os_user: hospital": "www-data",
            },
            {"pg_restore_drill": {"directory": "{{ lab_drill }}"}},
            only=(2,),
        ),
    ),
    "standby": (
        Example("pg_primary", "db1", (True,), CONFIG, only=(0,)),
        Example(
            "pg_standby",
            "db2",
            (True, True, False, False, False),
            {**CONFIG, "version: 15": "{{ lab_version }}"},
            {"pg_instance": {**INSTANCE, "socket_directory": "{{ lab_sockets }}"}},
        ),
        Example("pg_primary", "db1", (True,), CONFIG, only=(1,)),
        Example("pgbouncer_processes", "bouncer1", (True, False), {**CONFIG, "pgbouncer/userlist.txt": "users.txt"}),
    ),
    "switchover": (
        Example("agent_line", "all:!localhost", (False,), CONFIG),
        Example("pg_cluster_info", "localhost", (False, False), defaults={"pg_cluster_info": PATIENT}),
        Example("pg_switchover", "localhost", (True, True), SITE, {"pg_switchover": PATIENT}),
        Example("pgbouncer_databases", "bouncer1", (False,), CONFIG),
        Example("pgbouncer_ping", "bouncer1", (False,), CONFIG),
    ),
    "swap": (
        Example("agent_line", "all:!localhost", (False,), CONFIG),
        Example("pg_database_swap", "localhost", (True, True, True), SITE, {"pg_database_swap": PATIENT}),
    ),
    "cutover": (
        Example("agent_line", "all:!localhost", (False,), CONFIG),
        Example("pg_pitr_cutover", "localhost", (True, True, False), SITE, {"pg_pitr_cutover": PATIENT}),
    ),
    "failover": (
        Example("agent_line", "all:!localhost", (False,), CONFIG),
        Example("pg_failover", "localhost", (True,), SITE, {"pg_failover": PATIENT}, only=(0,)),
        Example("pg_rejoin", "db2", (True, False), CONFIG),
    ),
    "fenced": (
        Example("agent_line", "all:!localhost:!db1", (False,), CONFIG),
        Example(
            "pg_failover",
            "localhost",
            (True,),
            {**SITE, "/usr/local/sbin/power-off-and-check": "{{ lab_fence }}"},
            {"pg_failover": PATIENT},
            only=(1,),
        ),
    ),
}
"""What runs, in this order; the test prepares each scene."""


def examples_of(module: str) -> str:
    """The text of a module's examples."""
    tree = ast.parse((playbooks.ROOT / "plugins" / "modules" / f"{module}.py").read_text(encoding="utf-8"))
    for node in tree.body:
        names = [target.id for target in getattr(node, "targets", ()) if isinstance(target, ast.Name)]
        if "EXAMPLES" in names and isinstance(node, ast.Assign):
            return str(ast.literal_eval(node.value))
    return ""


def replaced(node: t.Any, rules: t.Mapping[str, str]) -> t.Any:
    """The same with other values: of ``option: value``, or wherever a text holds what is replaced."""
    if isinstance(node, dict):
        return {key: rules.get(f"{key}: {value}", replaced(value, rules)) for key, value in node.items()}
    if isinstance(node, list):
        return [replaced(item, rules) for item in node]
    for name, variable in rules.items() if isinstance(node, str) else ():
        node = node.replace(name, variable)
    return node


def tasks_of(example: Example) -> list[dict[str, t.Any]]:
    """The tasks that run, each with the name that its result is kept under."""
    text = examples_of(example.module)
    for name in example.replace:
        assert name in text, f"the examples of {example.module} don't name {name} any more"
    tasks: list[dict[str, t.Any]] = replaced(yaml.safe_load(text), example.replace)
    for number, task in enumerate(tasks):
        task.setdefault("register", f"example_{example.module}_{number}")
    return [tasks[number] for number in example.only] if example.only else tasks


def play_of(example: Example) -> dict[str, t.Any]:
    """A play that runs them, every one whatever became of those before, and writes down what came out."""
    tasks = tasks_of(example)
    results = ", ".join(str(task["register"]) for task in tasks)
    keep = {
        "name": "Write down what came out",
        "ansible.builtin.copy": {
            "dest": f"{{{{ lab_results }}}}/{example.name}-{{{{ inventory_hostname }}}}.json",
            "content": f"{{{{ [{results}] | to_json }}}}",
            "mode": "0600",
        },
        "delegate_to": "localhost",
        "no_log": True,
    }
    return {
        "name": f"The examples of {example.module}",
        "hosts": example.hosts,
        "gather_facts": False,
        "module_defaults": {COLLECTION + name: dict(values) for name, values in example.defaults.items()},
        "tasks": [*({**task, "ignore_errors": True} for task in tasks), keep],
    }


def play(scene: str, folder: pathlib.Path, hosts: t.Mapping[str, t.Any], environment: t.Mapping[str, str]) -> None:
    """Run a scene. `hosts` are the groups of an inventory, and under ``vars`` what the examples' variables are."""
    results = folder / "results" / scene
    results.mkdir(parents=True)
    variables = {
        "ansible_connection": "local",
        "ansible_python_interpreter": sys.executable,
        "lab_results": str(results),
        **hosts["vars"],
    }
    groups = {name: {"hosts": members} for name, members in hosts.items() if name != "vars"}
    inventory = {"all": {"vars": variables, "children": {**groups, "controller": {"hosts": {"localhost": {}}}}}}
    (folder / f"{scene}-hosts.json").write_text(json.dumps(inventory))
    plays = [play_of(example) for example in SCENES[scene]]
    (folder / f"{scene}.yml").write_text(json.dumps(plays))
    files = (folder / f"{scene}-hosts.json", folder / f"{scene}.yml")
    printed = playbooks.play(*files, seconds=500, environment={"HOME": str(folder), **environment})
    (folder / f"{scene}.log").write_text(printed)


def outcome(scene: str, example: Example, folder: pathlib.Path) -> dict[str, list[dict[str, t.Any]]]:
    """What came out of examples, by host."""
    found = (folder / "results" / scene).glob(f"{example.name}-*.json")
    return {path.stem.rpartition("-")[2]: json.loads(path.read_text()) for path in found}
