# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Streams a dump in a process of its own: one that can be killed, one with another Python and python-gnupg.

streams_child.py SETTINGS.json      SETTINGS: argv of the source, os_user, compression, encryption, folder, hold

hold names an event: once it was said, nothing goes on, until somebody kills it.
"""

from __future__ import annotations

import importlib
import json
import pathlib
import sys
import time
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / ".collections"))

from ansible_collections.hms.postgres.plugins.module_utils._artifact.keys import prepare_keyring
from ansible_collections.hms.postgres.plugins.module_utils._artifact.manifest import Member
from ansible_collections.hms.postgres.plugins.module_utils._artifact.model import Compression, Encryption
from ansible_collections.hms.postgres.plugins.module_utils._artifact.streams import store_stream, suffix
from ansible_collections.hms.postgres.plugins.module_utils._artifact.verify import verify_member
from ansible_collections.hms.postgres.plugins.module_utils._command import SystemRunner
from ansible_collections.hms.postgres.plugins.module_utils._pipeline import Stage
from ansible_collections.hms.postgres.plugins.module_utils._store.model import FolderSpec
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import open_store
from ansible_collections.hms.postgres.plugins.module_utils._tools.pg_restore import PgRestore

DEADLINE = 120.0


def say(hold: str = "", **what: t.Any) -> None:
    """One line of JSON for whoever started us; and the end of all progress, where this is the event to hold at."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()
    if hold and what["event"] == hold:
        time.sleep(DEADLINE)


class Writer:
    """Says when a mebibyte has been written."""

    def __init__(self, writer: t.Any, hold: str) -> None:
        self.writer = writer
        self.hold = hold
        self.bytes = 0
        self.said = False

    def write(self, data: bytes) -> None:
        """Add bytes."""
        self.writer.write(data)
        self.bytes += len(data)
        if self.bytes > 1024 * 1024 and not self.said:
            self.said = True
            say(self.hold, event="flowing")


def main() -> None:
    """Make a member, verify it, say what came of it."""
    settings = json.loads(pathlib.Path(sys.argv[1]).read_text(encoding="utf-8"))
    source = Stage("source", tuple(settings["argv"]), os_user=settings["os_user"])
    compression = Compression(settings["compression"])
    given = settings["encryption"]
    encryption = Encryption(
        tuple(given.get("recipients", ())), tuple(given.get("key_files", ())), given.get("passphrase")
    )
    store = open_store(FolderSpec(settings["folder"]))
    until = time.monotonic() + DEADLINE
    with prepare_keyring(encryption, runner=SystemRunner(), ephemeral=True) as ring:
        hold = settings.get("hold", "")
        say(hold, event="prepared", home=ring.encrypt_stage() is not None)
        name = "data.dump" + suffix(compression, encryption)
        writer = store.create("c/d/i/" + name)
        made = store_stream(
            source,
            compression=compression,
            keyring=ring,
            writer=Writer(writer, hold),
            deadline=until,
            os_user=settings["os_user"],
        )
        writer.commit()
        member = Member("data", name, made.bytes, made.sha256)
        restore = PgRestore(settings["pg_restore"], os_user=settings["os_user"])
        found = verify_member(store, "c/d/i/" + name, member, ring, pg_restore=restore, deadline=until)
    library = importlib.import_module("gnupg").__version__
    say(event="done", name=name, problems=found.problems, entries=found.entries, python_gnupg=library)


if __name__ == "__main__":
    main()
