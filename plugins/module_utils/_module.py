# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one place that knows AnsibleModule: results and errors out. PRIVATE to the collection."""

from __future__ import annotations

import dataclasses
import traceback
import typing as t

from ._errors import HmsError

if t.TYPE_CHECKING:  # pragma: no cover
    from ansible.module_utils.basic import AnsibleModule


@dataclasses.dataclass(frozen=True)
class Result:
    """What a module found or did.

    Attributes:
        changed: whether anything was changed, or would be in check mode.
        values: the module's return values.
        before: the state found, shown by ``--diff``.
        after: the state wanted, shown by ``--diff``.
        warnings: what the operator should know although it worked.
    """

    changed: bool
    values: t.Mapping[str, t.Any] = dataclasses.field(default_factory=dict)
    before: t.Any = None
    after: t.Any = None
    warnings: t.Sequence[str] = ()


def _diff_text(value: t.Any) -> str:
    import json

    if value is None:
        return ""
    if isinstance(value, str):
        return value if value.endswith("\n") or not value else value + "\n"
    return json.dumps(value, indent=1, sort_keys=True, default=str) + "\n"


def run(module: AnsibleModule, work: t.Callable[[], Result]) -> t.NoReturn:
    """Do `work` and end the module with its result, or with the error as a runbook."""
    try:
        result = work()
    except HmsError as error:
        module.fail_json(
            msg=error.full_text(),
            reason=error.reason,
            phase=error.phase,
            state=error.state,
            next_step=error.next_step,
            details=error.details,
            exception="".join(traceback.format_exception(type(error), error, error.__traceback__)),
        )
    for warning in result.warnings:
        module.warn(warning)
    values = dict(result.values)
    if result.before is not None or result.after is not None:
        values["diff"] = {"before": _diff_text(result.before), "after": _diff_text(result.after)}
    module.exit_json(changed=result.changed, **values)
