# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""Stands before a real S3 server as a network does, and does to it what networks do.

A rule looks at each request and says what happens: it passes, it is answered by us, it hangs, its connection dies
while the body is sent, its answer is lost, or the answer's body breaks off.
"""

from __future__ import annotations

import contextlib
import dataclasses
import http.client
import http.server
import socket
import ssl
import threading
import typing as t

from ansible_collections.hms.postgres.tests.real.s3_server import S3Server

_BLOCK = 64 * 1024


@dataclasses.dataclass(frozen=True)
class Request:
    """What came by."""

    method: str
    path: str
    headers: t.Mapping[str, str]

    @property
    def is_part(self) -> bool:
        """Whether it brings one part of a multipart upload."""
        return self.method == "PUT" and "partNumber=" in self.path

    @property
    def completes(self) -> bool:
        """Whether it completes a multipart upload."""
        return self.method == "POST" and "uploadId=" in self.path

    def header(self, name: str) -> str:
        """A header, by its name in any case."""
        return {key.lower(): value for key, value in self.headers.items()}.get(name.lower(), "")


@dataclasses.dataclass(frozen=True)
class Answer:
    """We answer, the server never sees it."""

    status: int
    code: str


@dataclasses.dataclass(frozen=True)
class Fault:
    """hang: nothing is answered. cut_request: the connection dies within the request's body, at `after` bytes.

    lose_answer: the server does it, the connection dies before the client knows. cut_answer: the answer's body breaks
    off after so many bytes.
    """

    kind: t.Literal["hang", "cut_request", "lose_answer", "cut_answer"]
    after: int = 0


Rule = t.Callable[[Request], t.Union[Answer, Fault, None]]


def times(count: int, which: t.Callable[[Request], bool], what: Answer | Fault) -> Rule:
    """The first so many requests of a kind meet with this."""
    left = [count]
    lock = threading.Lock()

    def rule(request: Request) -> Answer | Fault | None:
        with lock:
            if left[0] <= 0 or not which(request):
                return None
            left[0] -= 1
        return what

    return rule


class _Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    # as many as come at once: one that finds no room knocks again only after seconds
    request_queue_size = 128


class S3Relay:
    """`with S3Relay(server) as relay:` then `relay.rule = …`; `relay.seen` are the requests that came."""

    def __init__(self, server: S3Server) -> None:
        self._server = server
        self.rule: Rule = lambda _request: None
        self.corrupt: t.Callable[[Request], bool] = lambda _request: False
        self.seen: list[Request] = []
        self.let_go = threading.Event()
        relay = self

        class Handler(_Handler):
            owner = relay

        self._http = _Server(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(server.certificate, server.key)
        self._http.socket = context.wrap_socket(self._http.socket, server_side=True, do_handshake_on_connect=False)
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), daemon=True)

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._http.server_address[1])

    def settings(self, bucket: str, **more: t.Any) -> dict[str, t.Any]:
        """The settings of a store behind us."""
        return self._server.settings(bucket, endpoint_url=f"https://localhost:{self.port}", **more)

    def upstream(self) -> http.client.HTTPSConnection:
        """A connection to the server itself."""
        context = ssl.create_default_context(cafile=str(self._server.ca))
        return http.client.HTTPSConnection("localhost", self._server.port, timeout=60, context=context)

    def __enter__(self) -> S3Relay:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.let_go.set()
        self._http.shutdown()
        self._http.server_close()


class _Cut(Exception):
    """The connection is to die."""


class _Handler(http.server.BaseHTTPRequestHandler):
    owner: S3Relay
    protocol_version = "HTTP/1.1"

    def log_message(self, *_arguments: t.Any) -> None:
        """Not on the terminal."""

    def _handle(self) -> None:
        request = Request(self.command, self.path, dict(self.headers.items()))
        self.owner.seen.append(request)
        verdict = self.owner.rule(request)
        try:
            if isinstance(verdict, Answer):
                self._answer(verdict)
            else:
                self._pass_on(verdict, flip=self.owner.corrupt(request))
        except (_Cut, OSError, http.client.HTTPException):
            self.close_connection = True
            with contextlib.suppress(OSError):
                self.connection.shutdown(socket.SHUT_RDWR)

    def __getattr__(self, name: str) -> t.Any:
        """Every method of HTTP is handled alike."""
        if name.startswith("do_"):
            return self._handle
        raise AttributeError(name)

    def _answer(self, answer: Answer) -> None:
        for _block in self._body():
            pass
        text = f"<Error><Code>{answer.code}</Code><Message>injected</Message></Error>".encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "application/xml")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(text)

    def _body(self, stop_after: int | None = None) -> t.Iterator[bytes]:
        left, sent = int(self.headers.get("Content-Length") or 0), 0
        while left:
            if stop_after is not None and sent >= stop_after:
                raise _Cut
            block = self.rfile.read(min(left, _BLOCK))
            if not block:
                raise _Cut
            left, sent = left - len(block), sent + len(block)
            yield block

    def _pass_on(self, fault: Fault | None, *, flip: bool) -> None:
        kind = fault.kind if fault else ""
        if fault and kind == "hang":
            self.owner.let_go.wait(120)
            raise _Cut
        upstream = self.owner.upstream()
        try:
            upstream.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("expect", "connection"):
                    upstream.putheader(name, value)
            upstream.endheaders()
            for block in self._body(fault.after if fault and kind == "cut_request" else None):
                upstream.send(bytes([block[0] ^ 1]) + block[1:] if flip else block)
            response = upstream.getresponse()
            if kind == "lose_answer":
                response.read()
                raise _Cut
            self._give_back(response, fault.after if fault and kind == "cut_answer" else None)
        finally:
            upstream.close()

    def _give_back(self, response: http.client.HTTPResponse, stop_after: int | None) -> None:
        chunked = response.headers.get("Transfer-Encoding", "").lower() == "chunked"
        whole = response.read() if chunked else None
        self.send_response_only(response.status)
        for name, value in response.headers.items():
            if name.lower() not in ("transfer-encoding", "connection"):
                self.send_header(name, value)
        if whole is not None:
            self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        if whole is not None:
            self.wfile.write(whole)
            return
        sent = 0
        while block := response.read(_BLOCK):
            if stop_after is not None and sent >= stop_after:
                self.wfile.flush()
                raise _Cut
            self.wfile.write(block)
            sent += len(block)
