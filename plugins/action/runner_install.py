# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Puts the on-host runner on a host: built here, compared by checksum, copied when it differs."""

from __future__ import annotations

import hashlib
import os
import tempfile
import typing as t

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase

from ansible_collections.hms.postgres.plugins.plugin_utils import _bundle

ARGUMENT_SPEC: dict[str, t.Any] = {"path": {"type": "path", "default": "/usr/lib/hms-postgres/hms-postgres.pyz"}}
MODE = "0644"


class ActionModule(ActionBase):
    """The action behind C(hms.postgres.runner_install)."""

    TRANSFERS_FILES = True

    def run(self, tmp: str | None = None, task_vars: dict[str, t.Any] | None = None) -> dict[str, t.Any]:
        """Compare, copy, report."""
        variables = task_vars or {}
        result: dict[str, t.Any] = super().run(tmp, variables)
        base = t.cast(t.Any, self)  # Ansible's own methods have no types
        _validated, arguments = base.validate_argument_spec(argument_spec=ARGUMENT_SPEC)
        path: str = arguments["path"]
        content = _bundle.build()
        # SHA-1 is what Ansible compares files by; nothing is trusted because of it
        checksum = hashlib.sha1(content, usedforsecurity=False).hexdigest()
        found = base._execute_remote_stat(path, all_vars=variables, follow=True)
        before = str(found.get("checksum") or "") if found.get("exists") else ""
        result.update(changed=before != checksum, path=path, checksum=checksum)
        result["diff"] = {"before": f"{before}\n" if before else "", "after": f"{checksum}\n"}
        if result["changed"] and not self._task.check_mode:
            self._copy(content, path, variables)
        return result

    def _copy(self, content: bytes, path: str, variables: dict[str, t.Any]) -> None:
        handle, local = tempfile.mkstemp(prefix="hms-runner-")
        try:
            with os.fdopen(handle, "wb") as target:
                target.write(content)
            done = self._run_copy(local, path, variables)
        finally:
            os.unlink(local)
        if done.get("failed"):
            raise AnsibleActionFail(f"Copying the runner to {path} failed: {done.get('msg', 'no reason given')}")

    def _run_copy(self, local: str, path: str, variables: dict[str, t.Any]) -> dict[str, t.Any]:
        """Ansible's own copy, with our file: it knows every connection and `become`."""
        task = self._task.copy()
        task.args = {"src": local, "dest": path, "mode": MODE}
        action = self._shared_loader_obj.action_loader.get(
            "ansible.builtin.copy",
            task=task,
            connection=self._connection,
            play_context=self._play_context,
            loader=self._loader,
            templar=self._templar,
            shared_loader_obj=self._shared_loader_obj,
        )
        done: dict[str, t.Any] = action.run(task_vars=variables)
        return done
