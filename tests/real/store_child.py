# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stores something in a process of its own: one that can be killed, one with another Python, one that is measured.

store_child.py SETTINGS.json write KEY MEBIBYTES [HOW]      HOW: commit (the default), or hold: waits to be killed
store_child.py SETTINGS.json tour                           everything that a store can do, once
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import sys
import time
import typing as t

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / ".collections"))

from ansible_collections.hms.postgres.plugins.module_utils._errors import HmsError
from ansible_collections.hms.postgres.plugins.module_utils._store.open_store import (
    open_store,
    store_specs_from,
)
from ansible_collections.hms.postgres.plugins.module_utils._store.tee import Tee

MIB = 1024 * 1024


def say(**what: t.Any) -> None:
    """One line of JSON for whoever started us."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def peak() -> int:
    """The most memory that this program ever had, in MiB; what getrusage tells includes who started it."""
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) // 1024


def write(stores: t.Any, key: str, mebibytes: int, how: str) -> None:
    """Store random bytes."""
    before = peak()
    block, digest = os.urandom(MIB), hashlib.sha256()
    tee = Tee.create(stores, key, size_hint=mebibytes * MIB)
    for number in range(mebibytes):
        data = number.to_bytes(8, "big") + block[8:]
        digest.update(data)
        tee.write(data)
    if how == "hold":
        say(written=mebibytes)
        time.sleep(120)
    tee.commit()
    say(sha256=digest.hexdigest(), before=before, peak=peak(), python=sys.version_info[:2])


def tour(stores: t.Any) -> None:
    """Everything that a store can do."""
    for store in stores:
        store.check()
        tee = Tee.create([store], "c/d/large", size_hint=40 * MIB)
        for _number in range(40):
            tee.write(b"x" * MIB)
        tee.commit()
        store.put("c/d/small", b"one")
        try:
            store.put("c/d/small", b"two")
        except HmsError as error:
            say(refused=error.reason)
        store.put("c/d/small", b"three", replace=True)
        reader, size = store.open("c/d/large"), 0
        while piece := reader.read(MIB):
            size += len(piece)
        reader.close()
        aborted = store.create("c/d/aborted", size_hint=20 * MIB)
        for _number in range(20):
            aborted.write(b"x" * MIB)
        unfinished = [item.key for item in store.debris("c/")]
        aborted.abort()
        say(
            keys=[item.key for item in store.list("c/")],
            size=size,
            small=store.get("c/d/small").decode(),
            unfinished=unfinished,
            debris=len(store.debris()),
        )
        store.remove(["c/d/large", "c/d/small", "c/d/gone"])
        say(left=[item.key for item in store.list()], peak=peak())


def main() -> int:
    settings = json.loads(pathlib.Path(sys.argv[1]).read_text())
    stores = [open_store(spec) for spec in store_specs_from(settings)]
    if sys.argv[2] == "tour":
        tour(stores)
    else:
        write(stores, sys.argv[3], int(sys.argv[4]), (*sys.argv[5:], "commit")[0])
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
