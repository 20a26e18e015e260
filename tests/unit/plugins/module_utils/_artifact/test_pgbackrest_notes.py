# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What is noted beside pgBackRest's backups, and what a recovering server's log tells."""

from __future__ import annotations

import pytest

from ansible_collections.hms.postgres.plugins.module_utils._artifact import recovery_log
from ansible_collections.hms.postgres.plugins.module_utils._artifact.catalog import Entry
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Verification
from ansible_collections.hms.postgres.plugins.module_utils._artifact.pgbackrest_catalog import (
    NOTE_RESTORED,
    NOTE_VERIFICATION,
    note_of,
    verification_of,
    verifications_of,
)
from ansible_collections.hms.postgres.tests.unit.plugins.module_utils._backup.backups import ago, manifest, proven
from ansible_collections.hms.postgres.tests.unit.plugins.repositories import backup

DRILLED, FAILED = proven(ago(days=2), level="restored"), proven(ago(days=2), level="restored", ok=False)
EARLIER, LATER = proven(ago(days=3)), proven(ago(days=1))


@pytest.mark.parametrize(
    ("read", "drilled", "counts", "restored"),
    [
        (None, None, None, False),
        (LATER, None, LATER, False),
        (EARLIER, DRILLED, DRILLED, True),
        (LATER, DRILLED, LATER, True),
        (LATER, FAILED, FAILED, False),
        (proven(ago(days=1), ok=False), DRILLED, proven(ago(days=1), ok=False), False),
    ],
)
def test_verification_and_drill_have_a_note_each(
    read: Verification | None, drilled: Verification | None, counts: Verification | None, restored: bool
) -> None:
    """A later verification doesn't take a drill away, and doesn't excuse one that failed."""
    notes = {NOTE_VERIFICATION: read, NOTE_RESTORED: drilled}
    noted = {name: note_of(found) for name, found in notes.items() if found is not None}
    made = backup("20261122-194449F", 3, 4, annotations={**noted, "hms-other": "{"})
    assert verification_of(made) == counts
    entry = Entry(manifest(ago(days=4), verified=False), "repo1", verifications_of(made))
    assert bool(entry.restored) is restored
    assert entry.bad is (counts is not None and not counts.ok)


def test_a_note_that_is_not_ours_counts_as_none() -> None:
    made = backup("20261122-194449F", 3, 4, annotations={NOTE_VERIFICATION: "{broken", NOTE_RESTORED: "[]"})
    assert (verifications_of(made), verification_of(made)) == ((), None)


LOG = """\
2026-11-22 10:00:00.000 UTC [7] LOG:  restored log file "000000010000000000000003" from archive
2026-11-22 10:00:00.100 UTC [9] FATAL:  the database system is starting up
ERROR: [082]: unable to get WAL file '000000010000000000000004' from the archive asynchronously after 5 second(s)
ERROR: [029]: unable to decrypt header
2026-11-22 10:00:00.200 UTC [7] LOG:  restored log file "000000010000000000000004" from archive
2026-11-22 10:00:00.300 UTC [7] LOG:  last completed transaction was at log time 2026-11-22 09:59:59.5+00
2026-11-22 10:00:00.400 UTC [7] FATAL:  WAL ends before end of online backup
"""


def test_a_log_is_read() -> None:
    assert recovery_log.last_restored(LOG) == "000000010000000000000004"
    assert recovery_log.last_commit(LOG) == "2026-11-22 09:59:59.5+00 UTC"
    assert recovery_log.grave(LOG) == ["WAL ends before end of online backup"]
    assert recovery_log.fetch_errors(LOG) == ["[029]: unable to decrypt header"]
    assert recovery_log.ended(LOG)
    assert (
        recovery_log.stopped_at("x LOG:  recovery stopping before commit of 7\n")
        == "recovery stopping before commit of 7"
    )


def test_an_empty_log_tells_nothing() -> None:
    assert (recovery_log.last_restored(""), recovery_log.last_commit(""), recovery_log.stopped_at("")) == ("", "", "")
    assert not recovery_log.ended("")
    assert recovery_log.ended("LOG:  database system is shut down")
