# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""What systemctl does, as far as the agents ask it, for a machine whose init is not systemd.

systemctl_stand_in.py FOLDER show|stop|start|reset-failed [options] -- UNIT

It starts and ends real processes: a unit is ``FOLDER/UNIT.json`` (``{"argv": […], "env": {…}}``), ``UNIT.state`` beside
it holds the process's id and whether it is to run. Where a unit has ``"slow": true``, nobody ends it but SIGKILL.
"""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import sys
import typing as t


def alive(pid: int) -> bool:
    """Whether a process lives; a zombie doesn't."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Unit:
    """One unit."""

    def __init__(self, folder: pathlib.Path, name: str) -> None:
        self._file = folder / f"{name}.json"
        self._state = folder / f"{name}.state"

    def _read(self) -> dict[str, t.Any]:
        state: dict[str, t.Any] = {"pid": 0, "wanted": False}
        return json.loads(self._state.read_text()) if self._state.exists() else state

    def _write(self, **state: t.Any) -> None:
        aside = self._state.with_suffix(".new")
        aside.write_text(json.dumps(state))
        aside.rename(self._state)

    def show(self) -> str:
        state = self._read()
        running = alive(state["pid"]) if state["pid"] else False
        words = {
            (True, True): ("active", "running"),
            (True, False): ("deactivating", "stop-sigterm"),
            (False, True): ("failed", "failed"),
            (False, False): ("inactive", "dead"),
        }[running, state["wanted"]]
        load = "loaded" if self._file.exists() else "not-found"
        result = "exit-code" if words[0] == "failed" else "success"
        return f"LoadState={load}\nActiveState={words[0]}\nSubState={words[1]}\nResult={result}\nNRestarts=0\n"

    def stop(self) -> None:
        state = self._read()
        self._write(**{**state, "wanted": False})
        if state["pid"] and alive(state["pid"]):
            os.kill(state["pid"], signal.SIGTERM)

    def start(self) -> None:
        state = self._read()
        if state["pid"] and alive(state["pid"]):
            self._write(**{**state, "wanted": True})
            return
        told = json.loads(self._file.read_text())
        ours, theirs = os.pipe()  # its standard input never ends
        if not (child := os.fork()):
            process = subprocess.Popen(
                told["argv"],
                stdin=ours,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                env={**os.environ, **told.get("env", {})},
                pass_fds=[theirs],
                start_new_session=True,
            )
            self._write(pid=process.pid, wanted=True)
            os._exit(0)
        os.waitpid(child, 0)


def main() -> None:
    folder, verb, *_options, name = sys.argv[1:]
    unit = Unit(pathlib.Path(folder), name)
    if verb == "show":
        sys.stdout.write(unit.show())
    elif verb in ("stop", "start"):
        getattr(unit, verb)()


if __name__ == "__main__":
    main()
