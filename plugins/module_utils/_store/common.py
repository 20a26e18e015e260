# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What folders and buckets have in common: which keys are fine, how errors of a store read. PRIVATE."""

from __future__ import annotations

import re
import typing as t

from .._errors import HmsError, Refused

UNTOUCHED = "Nothing became visible under that name; what was stored before is untouched."
_READING = ("list", "list the unfinished uploads of", "look at", "read", "read from", "use", "use the folder")

# How a folder names what is being written: .<name>.<16 hex digits>.part
TEMPORARY = re.compile(r"^\.(?P<name>.+)\.[0-9a-f]{16}\.part$", re.DOTALL)
_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def state_after(what: str) -> str:
    """The state that a call leaves behind that did not succeed; who reads has nothing to tell of the store."""
    return "" if what in _READING else UNTOUCHED


def check_key(key: str) -> str:
    """The key, if it is one: a relative path without empty parts, ``.``, ``..`` or control characters."""
    parts = key.split("/")
    if _CONTROL.search(key) or any(part in ("", ".", "..") or TEMPORARY.match(part) for part in parts):
        raise HmsError(
            f"{key!r} is not a key that a store can hold.", reason="bad_key", next_step="Report this as a defect."
        )
    return key


def exists(store: str, key: str) -> HmsError:
    """The error for a key that is taken."""
    return HmsError(
        f"{store}/{key} exists already and is never replaced.",
        reason="exists",
        state="The object that is there was not touched.",
        next_step="Look who made it; two hosts that back up under the same cluster name would meet like this.",
        details={"store": store, "key": key},
    )


def not_found(store: str, key: str) -> HmsError:
    """The error for a key that holds nothing."""
    return HmsError(
        f"{store}/{key} does not exist.",
        reason="not_found",
        next_step="List the catalog again; it may have been removed meanwhile.",
        details={"store": store, "key": key},
    )


def too_large(store: str, key: str, size: int, limit: int) -> HmsError:
    """The error for an object that is not read whole."""
    return HmsError(
        f"{store}/{key} has {size} bytes, more than the {limit} that are read at once.",
        reason="too_large",
        next_step="It is not what it should be by its name; look at it by hand.",
        details={"store": store, "key": key, "size": size},
    )


def as_refused(error: HmsError, state: str = "Nothing was touched.") -> Refused:
    """The same error as a precondition that doesn't hold."""
    return Refused(
        error.message,
        reason=error.reason,
        phase=error.phase or "check",
        state=state,
        next_step=error.next_step,
        details=error.details,
    )


def not_removed(store: str, problems: t.Mapping[str, str]) -> HmsError:
    """The error for objects that could not be removed; each is named with its cause."""
    listed = "; ".join(f"{key}: {why}" for key, why in list(problems.items())[:20])
    more = f"; and {len(problems) - 20} more" if len(problems) > 20 else ""
    return HmsError(
        f"{len(problems)} objects of {store} could not be removed: {listed}{more}.",
        reason="not_removed",
        state="The others were removed.",
        next_step="Look at the rights on them, then run it again.",
        details={"store": store, "problems": dict(problems)},
    )
