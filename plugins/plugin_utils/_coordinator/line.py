# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A line to one host: a program that Ansible's own connection would start, and the agent at its other end. PRIVATE.

The agent's code travels over the line itself: a few lines of Python on the far side read a zip of known
length from standard input into memory and run it. No file is left behind, nothing listens.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shlex
import signal
import subprocess
import typing as t

from ansible_collections.hms.postgres.plugins.module_utils._errors import ConnectionFailed, HmsError, expect

# Read the length, then exactly so many bytes of zip into memory, and run its `agent` command.
_BOOTSTRAP = (
    "import os,sys\n"
    "def take(n):\n"
    "  b=b''\n"
    "  while len(b)<n:\n"
    "    c=os.read(0,n-len(b))\n"
    "    if not c: raise SystemExit('the line closed too early')\n"
    "    b+=c\n"
    "  return b\n"
    "f=os.memfd_create('hms-postgres')\n"
    "d=take(int(take(12)))\n"
    "while d: d=d[os.write(f,d):]\n"
    "sys.path.insert(0,'/proc/self/fd/%d'%f)\n"
    "from hms_postgres._runner import main\n"
    "raise SystemExit(main(['agent',*sys.argv[1:]]))\n"
)
_STDERR_KEPT = 8192
_CHUNK = 1 << 16
_LET_IN = b"BECOME-SUCCESS-"
"""What Ansible's become plugins print when they are through."""


def agent_command(interpreter: str, config_directory: str) -> str:
    """The shell command that becomes the agent of a member of the cluster on the far side."""
    return shlex.join([interpreter, "-c", _BOOTSTRAP, "--config", config_directory])


def services_command(interpreter: str, state_directory: str, *, systemctl: str = "") -> str:
    """The same for a host without a role in the cluster, which runs services."""
    program = ["--systemctl", systemctl] if systemctl else []
    return shlex.join([interpreter, "-c", _BOOTSTRAP, *program, "--services", state_directory])


@dataclasses.dataclass(frozen=True)
class LineSpec:
    """How to reach one host: the argv on this machine, and what sudo may ask."""

    host: str
    argv: tuple[str, ...]
    prompt: str = ""
    password: str = dataclasses.field(default="", repr=False)


class Line:
    """An open line. Nothing here ever blocks: the fleet's select loop says when to read, and when to go on writing."""

    def __init__(self, spec: LineSpec, bundle: bytes) -> None:
        self.host = spec.host
        self.hello: dict[str, t.Any] = {}
        self.error = ""
        self.heard = 0.0
        """When something last came in; the fleet's clock."""
        self._spec = spec
        self._outgoing = b""
        self._buffer = b""
        self._stderr = b""
        self._pending: list[dict[str, t.Any]] = []
        try:
            self._process = subprocess.Popen(
                list(spec.argv),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                bufsize=0,
                start_new_session=True,
            )
        except OSError as error:
            raise ConnectionFailed(
                f"{spec.argv[0]}, which leads to {spec.host}, can't be run here: {error.strerror}",
                reason="no_line",
                state="Nothing was touched.",
                next_step="Install it on this controller.",
            ) from error
        self._stdin = expect(self._process.stdin, "the pipe in")
        self._stdout = expect(self._process.stdout, "the pipe out")
        self._errors = expect(self._process.stderr, "the pipe for errors")
        for stream in (self._stdin, self._stdout, self._errors):
            os.set_blocking(stream.fileno(), False)
        self._bundle = bundle
        if not spec.prompt:
            self._give_code()

    @property
    def open(self) -> bool:
        """Whether the agent can still be spoken to."""
        return not self.error

    def handles(self) -> list[int]:
        """File descriptors to select on for reading."""
        return [stream.fileno() for stream in (self._stdout, self._errors) if not stream.closed]

    def unsent(self) -> int | None:
        """The file descriptor to select on for writing, while something waits to be written."""
        return self._stdin.fileno() if self._outgoing and not self._stdin.closed else None

    def _feed(self, data: bytes) -> None:
        self._outgoing += data
        self.flush()

    def flush(self) -> None:
        """Write as much as the other end takes now."""
        try:
            while self._outgoing:
                self._outgoing = self._outgoing[os.write(self._stdin.fileno(), self._outgoing[:_CHUNK]) :]
        except BlockingIOError:
            return
        except (OSError, ValueError):
            self._outgoing = b""
            self._lost("the line closed")

    def _give_code(self) -> None:
        self._feed(b"%012d" % len(self._bundle) + self._bundle)
        self._bundle = b""

    def _lost(self, why: str) -> None:
        self._read_complaints()
        if not self.error:
            tail = self._stderr.decode("utf-8", "replace").strip()
            self.error = f"{why}: {tail[-1000:]}" if tail else why

    def pump(self) -> None:
        """Take in what has arrived."""
        self._read_complaints()
        with contextlib.suppress(BlockingIOError, ValueError):
            data = os.read(self._stdout.fileno(), _CHUNK)
            self._buffer += data
            if not data:
                self._stdout.close()  # nothing more comes from here
                self._lost("the line closed")
        self._answer_prompt()
        while b"\n" in self._buffer:
            text, _newline, self._buffer = self._buffer.partition(b"\n")
            self._take(text)

    def _read_complaints(self) -> None:
        """All that stands in standard error by now: why a line closed is written there before it closes."""
        with contextlib.suppress(BlockingIOError, ValueError):
            while data := os.read(self._errors.fileno(), _CHUNK):
                self._stderr = (self._stderr + data)[-_STDERR_KEPT:]
            self._errors.close()

    def _answer_prompt(self) -> None:
        """Give sudo the password it asks for, then the code; only the code when it lets us in without."""
        if not self._bundle:
            return
        prompt = self._spec.prompt.encode()
        if prompt in self._stderr or prompt in self._buffer:
            self._buffer = self._buffer.rpartition(prompt)[2]  # no end of line comes after it
            self._feed(self._spec.password.encode() + b"\n")
            self._give_code()
        elif _LET_IN in self._buffer:
            self._give_code()

    def _take(self, text: bytes) -> None:
        try:
            message = json.loads(text)
        except ValueError:
            return  # a banner, or the mark that sudo succeeded
        if not isinstance(message, dict):
            return
        if "hello" in message:
            self.hello = message
            if not message["hello"]:
                self.error = HmsError.from_dict(message.get("error") or {}).full_text()
        elif message.get("n"):  # 0 is a ping's
            self._pending.append(message)

    def send(self, message: t.Mapping[str, t.Any]) -> None:
        """Ask something."""
        self._feed((json.dumps(message) + "\n").encode())

    def answer(self, number: int) -> dict[str, t.Any] | None:
        """The answer to request `number`, if it has come."""
        for message in self._pending:
            if message.get("n") == number:
                self._pending.remove(message)
                return message
        return None

    def require(self) -> None:
        """Raise `ConnectionFailed` when the line is gone."""
        if self.error:
            raise ConnectionFailed(f"No agent on {self.host}: {self.error}", reason="host_unreachable")

    def give_up(self, why: str) -> None:
        """Stop using this line; the agent's dead-man acts if it holds something."""
        self._lost(why)
        self.close()

    def close(self, *, patience: float = 0.5) -> None:
        """Close the line. The agent has detached itself, so nothing of it is killed by this."""
        with contextlib.suppress(BrokenPipeError, OSError):
            self._stdin.close()
        try:
            self._process.wait(patience)
        except subprocess.TimeoutExpired:
            self._end_program()
        for stream in (self._stdout, self._errors):
            stream.close()

    def _end_program(self) -> None:
        for number in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(0.5)
                return
