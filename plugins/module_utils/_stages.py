# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The stages of a pipeline, how they ended, and whose fault it was. PRIVATE to the collection."""

from __future__ import annotations

import contextlib
import dataclasses
import signal
import typing as t

from ._errors import ToolFailed

SECRET_FD = "@secret-fd@"
"""In an argv: the number of the descriptor from which the stage reads its `secret`."""

_BROKEN_PIPE = (-signal.SIGPIPE, 128 + signal.SIGPIPE)

Sink = t.Callable[[bytes], t.Any]
Source = t.Callable[[int], bytes]


@dataclasses.dataclass(frozen=True)
class Stage:
    """One program of a pipeline.

    Attributes:
        name: for messages, e.g. ``pg_dump``; errors carry it as their phase.
        argv: the program's absolute path and its arguments; never a secret.
        env: added to a small, fixed environment.
        os_user: whose rights it runs with; None for our own.
        secret: given to the program, and a newline, on the descriptor whose number stands for `SECRET_FD` in argv.
        clean: takes out of its complaints what must not reach a log, such as the rows they quote.
        stdin: an open file that it reads from, where nothing flows into it.
    """

    name: str
    argv: tuple[str, ...]
    env: t.Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)
    os_user: str | None = None
    secret: bytes | None = dataclasses.field(default=None, repr=False)
    clean: t.Callable[[str], str] | None = dataclasses.field(default=None, repr=False, compare=False)
    stdin: int | None = None


@dataclasses.dataclass(frozen=True)
class Tap:
    """A place between two stages where we look at every byte that flows by."""

    name: str
    see: Sink


@dataclasses.dataclass(frozen=True)
class StageResult:
    """How a stage ended.

    Attributes:
        rc: its exit code, negative for a signal.
        stderr_tail: the end of what it complained about.
        ended_by_us: whether we ended it, because of another or the deadline.
    """

    name: str
    rc: int
    stderr_tail: str = ""
    ended_by_us: bool = False

    @property
    def is_victim(self) -> bool:
        """Whether it failed only because the next one no longer read."""
        return self.rc in _BROKEN_PIPE or (self.rc != 0 and "broken pipe" in self.stderr_tail.lower())

    def how(self) -> str:
        """How it ended, in words."""
        number = -self.rc if self.rc < 0 else self.rc - 128
        if self.rc < 0 or number in (signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE):
            with contextlib.suppress(ValueError):
                return f"was ended by {signal.Signals(number).name}"
        return f"ended with {self.rc}"

    def as_dict(self) -> dict[str, t.Any]:
        """As plain data, for the details of an error."""
        return {"name": self.name, "rc": self.rc, "stderr_tail": self.stderr_tail}


def culprit(results: t.Sequence[StageResult]) -> StageResult | None:
    """The stage that failed first by cause, None when none did.

    A stage upstream of a failure is hit by SIGPIPE, one downstream of it finds its input cut short. So it is the first
    one that failed of its own accord; where all are victims, the last one, whose reader went away without complaint.
    """
    failed = [result for result in results if result.rc != 0 and not result.ended_by_us]
    own = [result for result in failed if not result.is_victim]
    if own or failed:
        return own[0] if own else failed[-1]
    return next((result for result in results if result.rc != 0), None)


def judge(results: t.Sequence[StageResult], *, what: str, state: str = "") -> None:
    """Raise `ToolFailed` unless every stage ended with 0."""
    guilty = culprit(results)
    if guilty is None:
        return
    tail = guilty.stderr_tail.strip()
    killed = " Somebody killed it, perhaps the kernel for want of memory." if guilty.rc == -signal.SIGKILL else ""
    raise ToolFailed(
        f"{what} failed: {guilty.name} {guilty.how()}{': ' + tail if tail else '.'}{killed}",
        reason="stage_failed",
        phase=guilty.name,
        state=state,
        details={"rc": guilty.rc, "stderr_tail": tail, "stages": [result.as_dict() for result in results]},
    )
