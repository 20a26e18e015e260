# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A real S3 server for tests: rclone, with TLS by a CA of its own and with credentials, over a plain folder.

Buckets are folders below `S3Server.data`, objects are files: what was stored can be looked at without S3.
"""

from __future__ import annotations

import os
import pathlib
import secrets
import signal
import socket
import ssl
import subprocess
import sys
import time
import typing as t

from ansible_collections.hms.postgres.tests.real.ports import Port, keep_port

# not among the instances' ports, and not among those that the kernel gives to clients
FIRST_PORT, LAST_PORT = 28000, 28999


def make_ca(folder: pathlib.Path, name: str = "ca") -> pathlib.Path:
    """A certification authority: its certificate."""
    certificate = folder / f"{name}.crt"
    _openssl(
        *("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"),
        *("-keyout", str(folder / f"{name}.key"), "-out", str(certificate), "-subj", f"/CN={name} of the tests"),
    )
    return certificate


def make_certificate(
    folder: pathlib.Path, name: str, names: t.Sequence[str] = ("DNS:localhost", "IP:127.0.0.1"), ca: str = "ca"
) -> tuple[pathlib.Path, pathlib.Path]:
    """A server's certificate and key, signed by the CA in that folder."""
    key, request, certificate = (folder / f"{name}.{suffix}" for suffix in ("key", "csr", "crt"))
    _openssl(
        *("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={name}"),
        *("-keyout", str(key), "-out", str(request)),
    )
    extensions = folder / f"{name}.ext"
    extensions.write_text(f"subjectAltName={','.join(names)}\n")
    _openssl(
        *("x509", "-req", "-in", str(request), "-CA", str(folder / f"{ca}.crt"), "-CAkey", str(folder / f"{ca}.key")),
        *("-CAcreateserial", "-days", "2", "-extfile", str(extensions), "-out", str(certificate)),
    )
    return certificate, key


def _openssl(*argv: str) -> None:
    done = subprocess.run(["openssl", *argv], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr


_KEPT: list[Port] = []


def free_port() -> int:
    """A port that nobody listens on, and no other test while this process lives: a server may come back to it."""
    _KEPT.append(keep_port(FIRST_PORT, LAST_PORT))
    return _KEPT[-1].number


class S3Server:
    """`with S3Server(folder) as server:` runs it; `stop`, `start` and `kill` in between."""

    def __init__(
        self,
        folder: pathlib.Path,
        *,
        names: t.Sequence[str] = ("DNS:localhost", "IP:127.0.0.1"),
        address: str = "127.0.0.1",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.data = folder / "data"
        self.data.mkdir(exist_ok=True)
        self.log = folder / "rclone.log"
        self.ca = make_ca(folder)
        self.certificate, self.key = make_certificate(folder, "server", names)
        self.address, self.port = address, free_port()
        self.access_key_id = "AKIA" + secrets.token_hex(8).upper()
        self.secret_access_key = secrets.token_hex(20)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint_url(self) -> str:
        """Where it listens."""
        return f"https://localhost:{self.port}"

    @property
    def pid(self) -> int:
        """The server's process."""
        assert self._process is not None
        return self._process.pid

    def bucket(self, name: str) -> pathlib.Path:
        """Make a bucket; its folder."""
        path = self.data / name
        if not path.exists():
            path.mkdir()
            self.forget()
        return path

    def settings(self, bucket: str, **more: t.Any) -> dict[str, t.Any]:
        """The settings of a store in this server: what stands under ``s3`` in a configuration."""
        return {
            "bucket": bucket,
            "endpoint_url": self.endpoint_url,
            "ca_bundle": str(self.ca),
            "access_key_id": self.access_key_id,
            "secret_access_key": self.secret_access_key,
            "addressing_style": "path",
            **more,
        }

    def start(self) -> None:
        """Start it, and wait until it answers."""
        rclone = pathlib.Path(sys.executable).parent / "rclone"
        # the credentials go through the environment: other people's `ps` shows the arguments
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.folder),
            "RCLONE_CONFIG": "/dev/null",
            "RCLONE_AUTH_KEY": f'"{self.access_key_id},{self.secret_access_key}"',
        }
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [
                    # it dies with us, however we die
                    *("setpriv", "--pdeathsig", "KILL"),
                    *(str(rclone), "serve", "s3", "--addr", f"{self.address}:{self.port}"),
                    *("--cert", str(self.certificate), "--key", str(self.key), "--vfs-cache-mode", "off"),
                    str(self.data),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self._await_answer()

    def _await_answer(self) -> None:
        deadline = time.monotonic() + 60
        context = ssl.create_default_context(cafile=str(self.ca))
        while not self._answers(context):
            alive = self._process is not None and self._process.poll() is None
            assert alive, f"rclone ended: {self.log.read_text()}"
            assert time.monotonic() < deadline, f"rclone doesn't answer: {self.log.read_text()}"
            time.sleep(0.05)

    def _answers(self, context: ssl.SSLContext) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as plain:
                context.wrap_socket(plain, server_hostname="localhost").close()
        except OSError:
            return False
        return True

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.send_signal(signal.SIGCONT)
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait(10)
            self._process = None

    def forget(self) -> None:
        """Let it look at the folder anew, after something was changed there beside it."""
        if self._process is not None:
            self.stop()
            self.start()

    def stop(self) -> None:
        """Stop it; from now on connections are refused."""
        self._end(signal.SIGTERM)

    def kill(self) -> None:
        """End it as a crash does."""
        self._end(signal.SIGKILL)

    def __enter__(self) -> S3Server:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()
