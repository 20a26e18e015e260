# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""gpg for payloads: it encrypts and decrypts as a stage of a pipeline, with a home of the run's own. PRIVATE.

It reads no configuration of the account, asks nobody anything, starts no daemon and compresses nothing. What it writes
is read by any gpg 2.2 or newer.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import subprocess
import time
import typing as t

from .._command import CommandRunner, clean_environment, find_program
from .._errors import DeadlinePassed, ToolFailed, ToolMissing, expect
from .._pipeline import SECRET_FD, Stage

NEEDED_FOR = "encrypting backups"
TIMEOUT = 60.0

_CIPHER = ("--compress-algo", "none", "--cipher-algo", "AES256")
# 65 million rounds are the most the format can say: a third of a second here, and the same for each guess elsewhere.
_STRENGTHEN = ("--s2k-mode", "3", "--s2k-digest-algo", "SHA512", "--s2k-cipher-algo", "AES256")
_ROUNDS = ("--s2k-count", "65011712")
# After a lying clock was set right, a backup must not fail because a key seems to come from the future.
_ANY_TIME = ("--ignore-time-conflict", "--ignore-valid-from")
_CREATED = re.compile(r"^\[GNUPG:\] KEY_CREATED \S+ ([0-9A-F]{40,64})", re.MULTILINE)
_EPHEMERAL = """\
%no-protection
Key-Type: EDDSA
Key-Curve: ed25519
Key-Usage: sign
Subkey-Type: ECDH
Subkey-Curve: cv25519
Subkey-Usage: encrypt
Name-Real: {name}
Expire-Date: 0
%commit
"""
_CHATTER = re.compile(
    r"^gpg: (?:keybox .* created|.*trustdb.*|\S+ encrypted data|encrypted with \d+ passphrases?)\n", re.MULTILINE
)
_REASONS = (
    ("Bad session key", "bad_passphrase"),
    ("Bad passphrase", "bad_passphrase"),
    ("No passphrase given", "passphrase_missing"),
    ("No secret key", "no_secret_key"),
    ("Unusable public key", "key_unusable"),
    ("No public key", "key_unknown"),
    ("encrypted message has been manipulated", "corrupt"),
    ("no valid OpenPGP data", "corrupt"),
    ("WARNING: message was not integrity protected", "corrupt"),
    ("No space left on device", "disk_full"),
)


def reason_of(stderr: str) -> str:
    """A slug for what gpg complains about, '' for what we don't know."""
    return next((reason for text, reason in _REASONS if text in stderr), "")


def without_chatter(text: str) -> str:
    """Complaints without what gpg says about every file."""
    return _CHATTER.sub("", text)


def _program(name: str) -> str:
    try:
        return find_program(name, needed_for=NEEDED_FOR)
    except ToolMissing as error:
        error.next_step = "Install Debian's package gnupg, or run playbooks/site.yml for this host."
        raise


class Gpg:
    """The program, for one home directory."""

    def __init__(self, home: str) -> None:
        self.program = _program("gpg")
        self.home = home

    def _base(self) -> tuple[str, ...]:
        return (self.program, "--homedir", self.home, "--no-options", "--no-autostart", "--batch", "--no-tty")

    def encrypt_stage(self, recipients: t.Sequence[str]) -> Stage:
        """Encrypt to public keys, named by their fingerprints."""
        named = [word for fingerprint in recipients for word in ("--recipient", fingerprint)]
        trust = ("--trust-model", "always", "--no-encrypt-to", *_ANY_TIME)
        return Stage(
            "gpg", (*self._base(), *_CIPHER, *trust, "--encrypt", *named, "--output", "-"), clean=without_chatter
        )

    def encrypt_symmetric_stage(self, passphrase: bytes) -> Stage:
        """Encrypt with a passphrase."""
        words = ("--pinentry-mode", "loopback", "--passphrase-fd", SECRET_FD, *_STRENGTHEN, *_ROUNDS)
        argv = (*self._base(), *_CIPHER, *words, "--symmetric", "--output", "-")
        return Stage("gpg", argv, secret=passphrase, clean=without_chatter)

    def decrypt_stage(self, passphrase: bytes | None) -> Stage:
        """Decrypt with the private keys of the home or a passphrase, which may also be a private key's."""
        unlock = () if passphrase is None else ("--pinentry-mode", "loopback", "--passphrase-fd", SECRET_FD)
        argv = (*self._base(), *unlock, *_ANY_TIME, "--decrypt", "--output", "-")
        return Stage("gpg -d", argv, secret=passphrase, clean=without_chatter)

    def version(self, runner: CommandRunner) -> str:
        """Its version, e.g. ``2.2.40``."""
        text = runner.run([self.program, "--version"], timeout=TIMEOUT).check("Asking gpg for its version").stdout
        return text.partition("\n")[0].rpartition(" ")[2]

    def make_key(self, name: str, runner: CommandRunner) -> str:
        """A new key pair without protection; its fingerprint. It needs the home's agent."""
        argv = [*self._base(), "--status-fd", "1", "--full-generate-key"]
        done = runner.run(argv, timeout=TIMEOUT, input_data=_EPHEMERAL.format(name=name).encode())
        found = _CREATED.search(done.check("Making a key for the verification").stdout)
        if not found:
            raise ToolFailed("gpg made no key for the verification and didn't say why.", reason="tool_failed")
        return found.group(1)

    def export(self, recipients: t.Sequence[str], runner: CommandRunner) -> str:
        """Public keys, armoured; '' for those that the home doesn't hold."""
        argv = [*self._base(), "--armor", "--export", "--", *recipients]
        return runner.run(argv, timeout=TIMEOUT).stdout


class GpgAgent:
    """The agent of a home of ours: without it gpg can't use a private key.

    It runs beside a ``cat`` that waits for us to go away. When that ends, because we closed its input or were killed,
    the agent notices within seconds and ends as well.
    """

    def __init__(self, home: str, runner: CommandRunner) -> None:
        self._home = home
        self._runner = runner
        self._agent = _program("gpg-agent")
        self._gpgconf = _program("gpgconf")
        self._lifeline: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._lifeline is not None

    def start(self) -> None:
        """Start it; returns when it listens."""
        options = ("--no-options", "--disable-scdaemon", "--quiet")
        argv = [self._agent, "--homedir", self._home, *options, "--daemon", "--", find_program("cat")]
        self._lifeline = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=clean_environment(),
            cwd="/",
            start_new_session=True,
        )
        to = expect(self._lifeline.stdin, "the input of cat").fileno()
        back = expect(self._lifeline.stdout, "the output of cat").fileno()
        # the agent listens before the cat is there to answer
        with contextlib.suppress(BrokenPipeError):
            os.write(to, b".")
        ready, _writable, _failed = select.select([back], [], [], TIMEOUT)
        if not ready or not os.read(back, 1):
            self.stop()
            raise DeadlinePassed(f"gpg-agent did not start in {self._home}.", reason="agent_failed", phase="gpg-agent")

    def stop(self) -> None:
        """End it and wait until it is gone; never raises."""
        lifeline, self._lifeline = self._lifeline, None
        if lifeline is None:
            return
        path = self._gpgconf_says("--list-dirs", "agent-socket").strip()
        self._gpgconf_says("--kill", "gpg-agent")
        for stream in (lifeline.stdin, lifeline.stdout):
            if stream:
                stream.close()
        try:
            lifeline.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            lifeline.kill()
            lifeline.wait(TIMEOUT)
        _await_silence(path)
        # where accounts have a folder below /run/user, the sockets are in a folder of their own there
        self._gpgconf_says("--remove-socketdir")

    def _gpgconf_says(self, *arguments: str) -> str:
        with contextlib.suppress(ToolFailed, ToolMissing, DeadlinePassed):
            return self._runner.run([self._gpgconf, "--homedir", self._home, *arguments], timeout=TIMEOUT).stdout
        return ""


def _await_silence(path: str) -> None:
    """Wait until nobody answers at a socket: an agent looks after its parent every few seconds only."""
    until = time.monotonic() + 10.0
    while time.monotonic() < until:
        with socket.socket(socket.AF_UNIX) as probe:
            try:
                probe.connect(path)
            except OSError:
                return
        time.sleep(0.02)
