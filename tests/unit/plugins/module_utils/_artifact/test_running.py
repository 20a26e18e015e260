# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""One operation of a kind at a time on a host."""

from __future__ import annotations

import pathlib

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import running
from ansible_collections.hms.postgres.plugins.module_utils._clock import SystemClock
from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError, Refused
from ansible_collections.hms.postgres.plugins.module_utils._files import HeldLock


def alone(path: pathlib.Path, by: str = "first") -> HeldLock:
    lock = HeldLock(str(path))
    with running.alone(lock, "drill", by=by, clock=SystemClock()):
        pass
    return lock


def test_the_second_is_told_who_is_the_first(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "drill.lock"
    with running.alone(HeldLock(str(path)), "drill", by="first", clock=SystemClock()):
        with pytest.raises(Refused, match="Another drill is at work on this host: first since") as caught:
            alone(path, "second")
        assert (caught.value.reason, caught.value.details["holder"]["by"]) == ("busy", "first")
    assert alone(path, "third").look() is None


def test_a_lock_that_cannot_be_made_is_no_crash(tmp_path: pathlib.Path) -> None:
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(HmsError, match="can't be made") as caught:
        alone(tmp_path / "state" / "drill.lock")
    assert (caught.value.reason, caught.value.next_step) == ("no_lock", "Give a state_dir that can be written.")


def test_a_nameless_holder_is_somebody() -> None:
    assert running.who({"by": "", "pid": 7}) == "somebody since an unknown time, process 7"


def test_the_lock_of_a_backup_holds_any_name() -> None:
    assert running.backup_lock("/state", "a/b").startswith("/state/backup-")
    assert "/" not in running.backup_lock("/state", "a/b")[len("/state/") :]
