# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A runner that runs nothing: what programs would say is scripted, what each was called with is written down."""

from __future__ import annotations

import os
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._command import CommandResult

Answer = tuple[int, str, str]
"""Exit code, stdout, stderr."""


class Call(t.NamedTuple):
    """What one program was called with."""

    argv: list[str]
    timeout: float
    env: dict[str, str] | None = None
    input_data: bytes | None = None
    os_user: str | None = None


class ScriptedRunner:
    """Answers each call with the next of `answers`, and none beyond; where there is only `always`, with that.

    `given` is what every call must be given besides its argv: ``env=None, os_user="postgres"``.
    """

    def __init__(self, *answers: Answer, always: Answer | None = None, **given: t.Any) -> None:
        self._answers = list(answers)
        self._always = always
        self._given = given
        self.calls: list[Call] = []

    def run(
        self,
        argv: t.Sequence[str],
        *,
        timeout: float,
        env: t.Mapping[str, str] | None = None,
        input_data: bytes | None = None,
        os_user: str | None = None,
    ) -> CommandResult:
        assert timeout > 0
        call = Call(list(argv), timeout, None if env is None else dict(env), input_data, os_user)
        assert {name: getattr(call, name) for name in self._given} == self._given
        assert self._answers or self._always, f"one program too many: {argv}"
        self.calls.append(call)
        rc, stdout, stderr = self._always or self._answers.pop(0)
        return CommandResult(tuple(argv), rc, stdout, stderr, 0.1)

    @property
    def argv(self) -> list[str]:
        """The last call's."""
        return self.calls[-1].argv

    @property
    def ran(self) -> list[list[str]]:
        """The argv of every call, the program by its name."""
        return [[os.path.basename(call.argv[0]), *call.argv[1:]] for call in self.calls]
