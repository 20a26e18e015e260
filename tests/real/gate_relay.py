# Copyright (c) 2026, the hms.postgres authors
# GNU General Public License v3.0 or later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later

"""A gate before a server: what it sends goes through until a test's condition shuts the gate.

So whoever copies from the server hangs in the middle of it, however fast the machine is and whoever looks when.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import typing as t

_BLOCK = 64 * 1024


class GateRelay:
    """Listens on `port` and leads to `target`, both on this machine, until it is closed."""

    def __init__(self, port: int, target: int, shut: t.Callable[[int], bool]) -> None:
        """`shut` is asked before each block, with the bytes that went through so far."""
        self.port = port
        self.held = threading.Event()
        """Set once the gate has kept something back."""
        self._target = target
        self._shut = shut
        self._passed = 0
        self._opened = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", port))
        threading.Thread(target=self._listen, daemon=True).start()

    def open(self) -> None:
        """Let everything through from now on."""
        self._opened.set()

    def close(self) -> None:
        """Cut what goes through."""
        self.open()
        for one in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def _listen(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _address = self._listener.accept()
                client.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BLOCK)
                server = socket.create_connection(("127.0.0.1", self._target))
                self._sockets += [client, server]
                for work, source, sink in ((self._ask, client, server), (self._answer, server, client)):
                    threading.Thread(target=self._pump, args=(work, source, sink), daemon=True).start()

    @staticmethod
    def _pump(
        work: t.Callable[[socket.socket, socket.socket], None], source: socket.socket, sink: socket.socket
    ) -> None:
        with contextlib.suppress(OSError):
            work(source, sink)
        for one in (source, sink):  # who loses one end loses the other
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    @staticmethod
    def _ask(client: socket.socket, server: socket.socket) -> None:
        while data := client.recv(_BLOCK):
            server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        while data := server.recv(_BLOCK):
            while not self._opened.is_set() and self._shut(self._passed):
                self.held.set()
                self._opened.wait(0.05)
            client.sendall(data)
            self._passed += len(data)
