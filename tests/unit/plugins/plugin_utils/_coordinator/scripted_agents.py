# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Small programs that speak an agent's protocol, well or badly, for tests of lines and fleets."""

from __future__ import annotations

import sys
import typing as t

from ansible_collections.hms.postgres.plugins.plugin_utils._coordinator.line import LineSpec

BUNDLE = b"x" * 300_000
"""More than a pipe holds, as the real one."""

_HEAD = """
import json, sys, time, os
def out(message):
    sys.stdout.write(json.dumps(message) + "\\n"); sys.stdout.flush()
def take_code():
    n = int(sys.stdin.buffer.read(12)); assert len(sys.stdin.buffer.read(n)) == n
def hello(**more):
    known = {"name": NAME, "cluster": "hospital", "environment": "staging", "kind": KIND, "members": []}
    out({"hello": True, **known, **more})
def requests(pings=False):
    for line in sys.stdin.buffer:
        message = json.loads(line)
        if message["n"] or pings: yield message  # how many pings come between depends on how long all takes
def answer(request, **result):
    out({"n": request["n"], "ok": True, "result": result, "took": 0.001})
def serve(**results):
    for request in requests():
        if request["verb"] == "goodbye":
            answer(request); return
        answer(request, verb=request["verb"], **request.get("args", {}))
"""

WELL = "take_code(); hello(); serve()"


def agent(name: str, script: str = WELL, *, kind: str = "database", **spec: t.Any) -> LineSpec:
    """A line to a program that runs `script`."""
    program = _HEAD.replace("NAME", repr(name)).replace("KIND", repr(kind)) + script
    return LineSpec(name, (sys.executable, "-c", program), **spec)
