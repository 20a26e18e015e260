# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The filter `hms.postgres.backup_plan`."""

from __future__ import annotations

DOCUMENTATION = r"""
name: backup_plan
short_description: Chooses the host for a backup by hand, and makes the module's arguments from its policy
version_added: 0.1.0
author:
  - the hms.postgres authors (@hms-postgres)
description:
  - Takes the names of hosts and, from C(hostvars), what each of them registered of its server (C(hms_backup_server),
    from M(hms.postgres.pg_backup_info)) and of its C(backup.json) (C(hms_backup_policy), from
    M(ansible.builtin.slurp)).
  - The arguments are those of the job that makes the type that is asked for, so that a backup made by hand is
    encrypted, stored, kept and removed as the scheduled ones are. Where no job makes it, the host's own arguments are
    taken.
  - The host is the first one whose turn it is by that job.
  - What was asked for goes before the policy. What can't be done is told under C(problem), with what to do.
positional: hostvars, asked
options:
  _input:
    description: Names of hosts, usually a group.
    type: list
    elements: str
    required: true
  hostvars:
    description: Ansible's C(hostvars).
    type: dict
    required: true
  asked:
    description:
      - What the operator asked for. All keys may be missing or empty. They are C(type), C(engine), C(database),
        C(host), C(compress) (a method), C(verify), C(encrypt) and C(upload) (whether to encrypt, and to store in the
        bucket).
    type: dict
    default: {}
"""

EXAMPLES = r"""
- name: See that it can be done as it was asked for
  ansible.builtin.assert:
    that: plan.problem | length == 0
    fail_msg: "{{ plan.problem }}"
  vars:
    plan: "{{ groups['database'] | hms.postgres.backup_plan(hostvars, {'type': 'schema_only', 'upload': true}) }}"
"""

RETURN = r"""
_value:
  description:
    - Under C(host) the host's name and under C(problem) why there is none; one of them is empty.
    - Under C(arguments) what M(hms.postgres.pg_backup) takes, secrets among it; under C(job) the name of the job that
      it follows, empty for none.
  type: dict
"""

import base64
import json
import typing as t
from collections.abc import Mapping, Sequence

from ansible.errors import AnsibleFilterError
from ansible.module_utils.parsing.convert_bool import boolean

_SHARED = ("schedule", "notify", "metrics")
_OWN = ("cron", "run_on", "max_age", "restored_within", "enabled", "watch")
_TYPES = ("full", "schema_only", "data_only", "differential", "incremental")
_PHYSICAL = ("differential", "incremental")
_METHODS = ("zstd", "gzip", "lz4", "none")
_LEVELS = ("none", "read", "deep")
_ASKED = ("type", "engine", "database", "compress", "verify", "encrypt", "upload", "host")


def _choice(asked: Mapping[str, t.Any], name: str, choices: tuple[str, ...]) -> str:
    """What was asked for, '' when nothing was; anything unknown is refused by name."""
    value = str(asked.get(name) or "")
    if value and value not in choices:
        raise AnsibleFilterError(f"{name}={value} is not known; there are {', '.join(choices)}. Nothing was touched.")
    return value


def _answer(asked: Mapping[str, t.Any], name: str) -> bool | None:
    """Yes, no, or nothing said."""
    value = asked.get(name)
    if value is None or value == "":
        return None
    try:
        return bool(boolean(value))
    except TypeError as error:
        raise AnsibleFilterError(f"{name}={value} is neither true nor false. Nothing was touched.") from error


def _job(policy: Mapping[str, t.Any], asked: Mapping[str, t.Any], kind: str) -> tuple[str, dict[str, t.Any]]:
    """The job that makes this type (of this engine and database, where one is asked for): its name and its words."""
    for name, job in (policy.get("schedule") or {}).items():
        merged = {"type": "full", "engine": "pg_dump", **policy, **job}
        wanted = {"type": kind, **{key: asked[key] for key in ("engine", "database") if asked.get(key)}}
        if job.get("enabled", True) and all(merged.get(key) == value for key, value in wanted.items()):
            return str(name), dict(job)
    return "", {}


def arguments_of(policy: Mapping[str, t.Any], asked: Mapping[str, t.Any]) -> tuple[dict[str, t.Any], str, str]:
    """The arguments of one backup, whose turn it is, and the job that it follows."""
    kind = _choice(asked, "type", _TYPES) or "full"
    name, job = _job(policy, asked, kind)
    own = {key: value for key, value in job.items() if key not in _OWN}
    arguments = {**{key: value for key, value in policy.items() if key not in _SHARED}, **own, "type": kind}
    if not name and kind in _PHYSICAL:
        arguments["engine"] = "pgbackrest"
    arguments.update({key: asked[key] for key in ("engine", "database") if asked.get(key)})
    for key, choices, argument in (("compress", _METHODS, "compression"), ("verify", _LEVELS, "verify")):
        value = _choice(asked, key, choices)
        arguments.update({argument: value} if value else {})
    _encryption(arguments, _answer(asked, "encrypt"))
    _stores(arguments, _answer(asked, "upload"))
    return arguments, str(job.get("run_on") or "primary"), name


def _policy(answer: t.Any) -> Mapping[str, t.Any] | None:
    """The content of ``backup.json`` as it was registered; None where there is none."""
    try:
        found = json.loads(base64.b64decode(answer["content"]))
    except (KeyError, TypeError, ValueError):
        return None
    return found if isinstance(found, Mapping) and found.get("cluster") else None


def backup_plan(
    names: Sequence[str], hostvars: Mapping[str, Mapping[str, t.Any]], asked: Mapping[str, t.Any] | None = None
) -> dict[str, t.Any]:
    """The host, the arguments, or why there are none."""
    asked = {key: value for key, value in (asked or {}).items() if value not in (None, "")}
    unknown = sorted(set(asked) - set(_ASKED))
    if unknown:
        raise AnsibleFilterError(f"A backup can't be asked for {', '.join(unknown)}; there are {', '.join(_ASKED)}.")
    wanted = str(asked.get("host", ""))
    if wanted and wanted not in names:
        return _problem(f"{wanted} is not a database host; these are: {', '.join(names)}. Nothing was touched.")
    told: list[str] = []
    for name in [wanted] if wanted else names:
        policy = _policy(hostvars[name].get("hms_backup_policy"))
        if policy is None:
            told.append(f"{name} has no backup policy or can't be reached")
            continue
        try:
            arguments, run_on, job = arguments_of(policy, asked)
        except AnsibleFilterError as error:
            return _problem(str(error))
        answer = hostvars[name].get("hms_backup_server") or {}
        role = str(answer.get("server_role", "unknown"))
        if wanted or run_on in (role, "any"):
            return {"host": str(name), "problem": "", "arguments": arguments, "job": job}
        told.append(f"{name} is {role}, and it is the {run_on}'s turn")
    return _problem(
        f"No host can make this backup: {'; '.join(told)}. Nothing was touched. Start the server, or run"
        " playbooks/site.yml where a policy is missing, or name a host: -e host=NAME."
    )


def _problem(words: str) -> dict[str, t.Any]:
    return {"host": "", "problem": words, "arguments": {}, "job": ""}


def _encryption(arguments: dict[str, t.Any], wanted: bool | None) -> None:
    known = arguments.get("encryption") or {}
    able = any(known.get(key) for key in ("recipients", "passphrase", "passphrase_file"))
    if arguments.get("engine") == "pgbackrest":
        if wanted is not None:
            raise AnsibleFilterError(
                "encrypt can't be chosen for pgBackRest: its repository is encrypted as it was set up, or not at all."
            )
    elif wanted and not able:
        raise AnsibleFilterError(
            "encrypt=true, but the policy names neither recipients nor a passphrase. Nothing was touched. "
            "Set them in the inventory and run playbooks/site.yml."
        )
    elif wanted is False:
        arguments.pop("encryption", None)


def _stores(arguments: dict[str, t.Any], upload: bool | None) -> None:
    store = dict(arguments.get("store") or {})
    if upload is None:
        return
    if arguments.get("engine") == "pgbackrest":
        raise AnsibleFilterError("upload can't be chosen for pgBackRest: its repository is where it was set up.")
    if upload and not store.get("s3"):
        raise AnsibleFilterError(
            "upload=true, but the policy names no bucket. Nothing was touched. "
            "Set one in the inventory and run playbooks/site.yml."
        )
    if not upload:
        if not store.get("folder"):
            raise AnsibleFilterError("upload=false, but the policy names no folder besides the bucket.")
        store.pop("s3", None)
    arguments["store"] = store


class FilterModule:
    """What Ansible looks for."""

    def filters(self) -> dict[str, t.Callable[..., t.Any]]:
        """The filters of this file."""
        return {"backup_plan": backup_plan}
