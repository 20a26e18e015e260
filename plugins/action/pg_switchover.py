# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Run the switchover engine from the controller, over the agents' lines."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.task import (
    OPERATION_SPEC,
    PLANNED,
    run_operation,
)

SPEC: dict[str, t.Any] = {**OPERATION_SPEC, **PLANNED, "candidate": {"type": "str", "required": True}}


class ActionModule(ActionBase):
    """See the module of the same name for its documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _options, arguments = t.cast(t.Any, self).validate_argument_spec(SPEC)
        hostvars = (task_vars or {})["hostvars"]
        result.update(run_operation("switchover", arguments, hostvars, check_mode=self._task.check_mode))
        return result
