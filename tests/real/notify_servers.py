# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Servers that are told things: a webhook's, a watchdog's and a mail server's, with TLS, on this machine."""

from __future__ import annotations

import base64
import contextlib
import http.server
import json
import pathlib
import socketserver
import ssl
import threading
import time
import typing as t

from ansible_collections.hms.postgres.tests.real.s3_server import make_ca, make_certificate


def tls_context(folder: pathlib.Path) -> tuple[ssl.SSLContext, pathlib.Path]:
    """A server's context for localhost, and the CA that signed its certificate."""
    ca = make_ca(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*make_certificate(folder, "server"))
    return context, ca


@contextlib.contextmanager
def serving(server: socketserver.TCPServer) -> t.Iterator[int]:
    """A server at work; its port."""
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield int(server.socket.getsockname()[1])
    finally:
        server.shutdown()
        server.server_close()


class WebServer(http.server.ThreadingHTTPServer):
    """Takes POSTs; answers with `statuses` in turn, the last one for ever; a status of 0 hangs."""

    daemon_threads = True

    def __init__(self, *statuses: int, tls: ssl.SSLContext | None = None) -> None:
        super().__init__(("127.0.0.1", 0), _WebHandler)
        self.statuses = list(statuses or (200,))
        self.let_go = threading.Event()
        self.got: list[tuple[str, str, bytes]] = []
        if tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_arguments: t.Any) -> None:
        """A client that doesn't trust us is not worth a traceback."""

    def server_close(self) -> None:
        self.let_go.set()
        super().server_close()

    @property
    def json(self) -> t.Any:
        """The last body."""
        return json.loads(self.got[-1][2])


class _WebHandler(http.server.BaseHTTPRequestHandler):
    server: WebServer

    def log_message(self, *_arguments: t.Any) -> None:
        """Not on the terminal."""

    def __getattr__(self, name: str) -> t.Any:
        if name.startswith("do_"):
            return self._take
        raise AttributeError(name)

    def _take(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.server.got.append((self.command, self.path, body))
        statuses = self.server.statuses
        status = statuses.pop(0) if len(statuses) > 1 else statuses[0]
        if status == 0:
            self.server.let_go.wait(60)
            return
        self.send_response(status)
        if status in (301, 302, 307):
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", "0")
        self.end_headers()


class MailServer(socketserver.ThreadingTCPServer):
    """Speaks as much SMTP as a client needs. Keeps mails; `refuses` are addresses that it doesn't take."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(
        self,
        *,
        tls: ssl.SSLContext | None = None,
        from_the_start: bool = False,
        login: tuple[str, str] | None = None,
        refuses: t.Collection[str] = (),
        busy: int = 0,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _MailHandler)
        self.tls, self.login, self.refuses, self.busy = tls, login, refuses, busy
        self.mails: list[tuple[bool, list[str], str]] = []
        """Whether it came through TLS, to whom, the text."""
        self.connections = 0
        if from_the_start and tls is not None:
            self.socket = tls.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, *_arguments: t.Any) -> None:
        """A client that doesn't trust us is not worth a traceback."""


class _MailHandler(socketserver.StreamRequestHandler):
    server: MailServer

    def finish(self) -> None:
        super().finish()
        # after STARTTLS it is not the socket that the server closes
        self.connection.close()

    def say(self, text: str) -> None:
        self.wfile.write(text.encode() + b"\r\n")

    def handle(self) -> None:
        server = self.server
        server.connections += 1
        self.to: list[str] = []
        self.known = server.login is None
        if server.busy:
            server.busy -= 1
            return self.say("421 too busy")
        self.say("220 test")
        while line := self.rfile.readline():
            verb, _blank, rest = line.decode().strip().partition(" ")
            if verb.upper() == "QUIT":
                return self.say("221 bye")
            getattr(self, f"on_{verb.lower()}", self.on_else)(rest)
        return None

    def on_else(self, _rest: str) -> None:
        self.say("250 fine")

    def on_ehlo(self, _rest: str) -> None:
        offers = ["250-test"]
        if self.server.tls is not None and not isinstance(self.connection, ssl.SSLSocket):
            offers.append("250-STARTTLS")
        if self.server.login is not None:
            offers.append("250-AUTH PLAIN")
        self.say("\r\n".join([*offers, "250 8BITMIME"]))

    def on_starttls(self, _rest: str) -> None:
        assert self.server.tls is not None
        self.say("220 go on")
        self.connection = self.server.tls.wrap_socket(self.connection, server_side=True)
        self.rfile, self.wfile = self.connection.makefile("rb"), self.connection.makefile("wb", 0)

    def on_auth(self, rest: str) -> None:
        given = base64.b64decode(rest.partition(" ")[2]).decode().split("\0")[1:]
        self.known = tuple(given) == self.server.login
        self.say("235 welcome" if self.known else f"535 no such user or password {given}")

    def on_rcpt(self, rest: str) -> None:
        address = rest.partition("<")[2].partition(">")[0]
        if address in self.server.refuses or not self.known:
            return self.say("550 no")
        self.to.append(address)
        return self.say("250 fine")

    def on_data(self, _rest: str) -> None:
        self.say("354 go on")
        lines = iter(lambda: self.rfile.readline().decode(), ".\r\n")
        self.server.mails.append((isinstance(self.connection, ssl.SSLSocket), self.to, "".join(lines)))
        self.say("250 taken")


class Hanging(socketserver.ThreadingTCPServer):
    """Accepts, and never says a word."""

    daemon_threads = True

    def __init__(self) -> None:
        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                time.sleep(60)

        super().__init__(("127.0.0.1", 0), Handler)
