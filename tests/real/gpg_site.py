# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Somebody with a GnuPG home of his own, for tests: makes keys, decrypts. Nothing here uses the collection."""

from __future__ import annotations

import os
import pathlib
import shutil
import subprocess
import tempfile


def homes_of(pid: int) -> str:
    """How the folders begin that a run keeps its keys in."""
    return f"hms-postgres-{pid}-"


class Operator:
    """A GnuPG home and what can be done with it; removed with its agent by `close`."""

    def __init__(self) -> None:
        self.home = pathlib.Path(tempfile.mkdtemp(prefix="operator-", dir="/dev/shm"))

    def gpg(self, *arguments: str, data: bytes = b"") -> bytes:
        """What gpg prints."""
        argv = ["gpg", "--homedir", str(self.home), "--batch", "--no-tty", "--pinentry-mode", "loopback", *arguments]
        done = subprocess.run(argv, input=data, capture_output=True, check=False, timeout=60.0)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout

    def make(self, address: str, *, usage: str = "encr", expires: str = "0", passphrase: str = "") -> str:
        """A new key whose subkey is for `usage` (none without one) and ends after `expires`; its fingerprint."""
        person = f"{address.partition('@')[0].title()} <{address}>"
        unlock = ("--passphrase", passphrase)
        self.gpg(*unlock, "--quick-generate-key", person, "ed25519", "cert,sign", "0")
        fingerprint = self.fingerprint(address)
        if usage:
            self.gpg(*unlock, "--quick-add-key", fingerprint, "cv25519", usage, expires)
        return fingerprint

    def fingerprint(self, address: str) -> str:
        """A key's fingerprint."""
        listed = self.gpg("--with-colons", "--list-keys", address).decode().splitlines()
        return next(line.split(":")[9] for line in listed if line.startswith("fpr:"))

    def validity(self, address: str) -> str:
        """gpg's letter for the validity of a key's subkey: e once it has expired."""
        listed = self.gpg("--with-colons", "--list-keys", address).decode().splitlines()
        return next(line.split(":")[1] for line in listed if line.startswith("sub:"))

    def revoke(self, fingerprint: str) -> None:
        """Revoke a key with the certificate that gpg keeps for that."""
        text = (self.home / "openpgp-revocs.d" / f"{fingerprint}.rev").read_text()
        self.gpg("--import", data=text.replace("\n:-----BEGIN", "\n-----BEGIN").encode())

    def export(self, who: str, *, secret: bool = False, passphrase: str = "") -> str:
        """A file with a key, armoured."""
        path = self.home / f"{who}.{'private' if secret else 'public'}.asc"
        what = ("--passphrase", passphrase, "--export-secret-keys") if secret else ("--export",)
        path.write_bytes(self.gpg("--armor", *what, who))
        path.chmod(0o600)
        return str(path)

    def close(self) -> None:
        """End the agent and remove everything."""
        subprocess.run(["gpgconf", "--homedir", str(self.home), "--kill", "all"], check=False, timeout=60.0)
        shutil.rmtree(self.home, ignore_errors=True)


def run_homes(pid: int) -> set[str]:
    """The folders in memory in which a run keeps its keys."""
    places = [pathlib.Path("/dev/shm"), pathlib.Path("/run")]
    return {str(path) for place in places for path in place.glob(f"{homes_of(pid)}*")}


def processes_with(text: str) -> dict[int, str]:
    """The living processes whose arguments hold a text, ourselves left out; zombies have no arguments."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                arguments = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:
                continue
            if text in arguments:
                found[int(entry.name)] = arguments
    return found


def children_of(pid: int) -> dict[int, str]:
    """The living children of a process, by name."""
    found = {}
    for entry in pathlib.Path("/proc").iterdir():
        try:
            state, parent = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
            if int(parent) == pid and state not in ("Z", "X"):
                found[int(entry.name)] = (entry / "comm").read_text().strip()
        except (OSError, ValueError):
            continue
    return found
