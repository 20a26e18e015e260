# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""How to reach this host with an agent: Ansible's own connection, turned into an argv for the coordinator."""

from __future__ import annotations

import typing as t

from ansible import constants
from ansible.plugins.action import ActionBase

from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.line import (
    agent_command,
    services_command,
)

SUPPORTED = ("ssh", "local")


class ActionModule(ActionBase):
    """Nothing is run on the host; its connection's variables are all that is read."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        variables = task_vars or {}
        _options, arguments = t.cast(t.Any, self).validate_argument_spec(
            {"config_directory": {"type": "path"}, "state_directory": {"type": "path"}},
            mutually_exclusive=[["config_directory", "state_directory"]],
            required_one_of=[["config_directory", "state_directory"]],
        )
        transport = self._connection.transport
        if transport not in SUPPORTED:
            message = f"Agents go over the connections {' and '.join(SUPPORTED)}; this host has {transport}."
            return {**result, "failed": True, "msg": message}
        interpreter = str(variables.get("ansible_python_interpreter") or "/usr/bin/python3")
        if arguments["state_directory"]:
            agent = services_command(interpreter, arguments["state_directory"])
        else:
            agent = agent_command(interpreter, arguments["config_directory"])
        command, prompt = self._as_root(agent)
        result.update(changed=False, line={"argv": self._argv(transport, command), "prompt": prompt})
        return result

    def _as_root(self, command: str) -> tuple[str, str]:
        """The command under the task's become method, and the prompt it may show."""
        become = self._connection.become
        if become is None:
            return command, ""
        same = become.get_option("become_user") == t.cast(t.Any, self)._get_remote_user()
        if same and not constants.config.get_config_value("BECOME_ALLOW_SAME_USER"):
            return command, ""
        wrapped = become.build_become_command(command, self._connection._shell)
        return wrapped, str(become.prompt or "") if become.get_option("become_pass") else ""

    def _argv(self, transport: str, command: str) -> list[str]:
        if transport == "local":
            return ["/bin/sh", "-c", command]
        connection: t.Any = self._connection  # ssh's own class, whose argv no public method gives
        connection.host = connection.get_option("host") or self._play_context.remote_addr
        executable = connection.get_option("ssh_executable")
        argv = connection._build_command(executable, "ssh", connection.host, command)
        return [item.decode() if isinstance(item, bytes) else str(item) for item in argv]
