# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Look at the whole cluster from the controller, over the agents' lines."""

from __future__ import annotations

import typing as t

from ansible.plugins.action import ActionBase

from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.task import SITE_SPEC, run_overview


class ActionModule(ActionBase):
    """See the module of the same name for its documentation."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: t.Any = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        result: dict[str, t.Any] = super().run(tmp, task_vars)
        _options, arguments = t.cast(t.Any, self).validate_argument_spec(SITE_SPEC)
        result.update(run_overview(arguments, (task_vars or {})["hostvars"]))
        return result
