# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""The one family of errors. PRIVATE to the collection.

Whoever reads a message from here is on call: it says what failed, what state the
system is in, and what to do next.
"""

from __future__ import annotations

import typing as t


class HmsError(Exception):
    """An operation cannot go on.

    Args:
        message: what failed, naming the object.
        reason: a slug that programs may switch on, e.g. ``connection_failed``.
        phase: the phase of the operation in which it happened.
        state: what state the system is in now.
        next_step: what the reader should do.
        details: structured evidence; never a secret.
    """

    def __init__(
        self,
        message: str,
        *,
        reason: str = "failed",
        phase: str = "",
        state: str = "",
        next_step: str = "",
        details: t.Mapping[str, t.Any] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.phase = phase
        self.state = state
        self.next_step = next_step
        self.details: dict[str, t.Any] = dict(details or {})

    def full_text(self) -> str:
        """The message with the state and the next step, as one paragraph."""
        parts = [self.message]
        if self.state:
            parts.append("State: " + self.state)
        if self.next_step:
            parts.append("Next: " + self.next_step)
        return " ".join(part if part.endswith((".", "!", "?")) else part + "." for part in parts)

    def as_dict(self) -> dict[str, t.Any]:
        """The error as plain data, for records and for the wire."""
        return {
            "message": self.message,
            "reason": self.reason,
            "phase": self.phase,
            "state": self.state,
            "next_step": self.next_step,
            "details": self.details,
        }

    @classmethod
    def from_dict(cls, data: t.Mapping[str, t.Any]) -> HmsError:
        """The inverse of `as_dict`."""
        return cls(
            str(data.get("message", "unknown error")),
            reason=str(data.get("reason", "failed")),
            phase=str(data.get("phase", "")),
            state=str(data.get("state", "")),
            next_step=str(data.get("next_step", "")),
            details=data.get("details") or {},
        )


class ToolMissing(HmsError):
    """A program that is needed is not installed."""


class ToolFailed(HmsError):
    """A program ended with an error; `details` hold rc and the end of stderr."""


class ConnectionFailed(HmsError):
    """A server did not accept the connection."""


class DeadlinePassed(HmsError):
    """Something was waited for and did not come in time."""


class Refused(HmsError):
    """A precondition does not hold; nothing was touched."""


_T = t.TypeVar("_T")


def defect(what: str) -> HmsError:
    """The error for what cannot be: to be raised where an assertion would stand."""
    return HmsError(f"{what} is missing, which cannot be.", reason="defect", next_step="Report this as a defect.")


def expect(value: _T | None, what: str) -> _T:
    """`value`, which cannot be None here; should it be after all, the error names `what` is missing."""
    if value is None:
        raise defect(what)
    return value
