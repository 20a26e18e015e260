# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands between a coordinator and an agent, as a network does; SIGSTOP makes it a network that swallows everything.

engine_relay.py PIDFILE PROGRAM ARGUMENT...
"""

from __future__ import annotations

import os
import pathlib
import select
import subprocess
import sys


def main() -> int:
    path = pathlib.Path(sys.argv[1])
    with subprocess.Popen(sys.argv[2:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True) as far:
        assert far.stdin is not None
        assert far.stdout is not None
        path.with_suffix(".new").write_text(str(os.getpid()))
        path.with_suffix(".new").rename(path)
        ways = {0: far.stdin.fileno(), far.stdout.fileno(): 1}
        while ways:
            for source in select.select(list(ways), [], [])[0]:
                data = os.read(source, 1 << 16)
                target = ways[source]
                if not data:
                    if source == 0:
                        far.stdin.close()
                        del ways[0]
                        continue
                    return 0
                while data:
                    data = data[os.write(target, data) :]
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
