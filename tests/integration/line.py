"""A line to a host that is as slow as wanted, is cut where wanted, and counts what goes to the host."""

from __future__ import annotations

import socket
import threading
import time
from typing import Any

BLOCK = 1 << 16


class Line:
    """Listens on a loopback port and carries each connection to a host's sshd.

    Args:
        host: the host's address.
        port: where it listens.

    Attributes:
        sent: bytes that went to the host.
        rate: most bytes a second to the host; 0: any.
        cut_after: all connections end when so many bytes went to the host; 0: never.
    """

    def __init__(self, host: str, port: int = 22) -> None:
        self.sent = 0
        self.rate = 0
        self.cut_after = 0
        self._host = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: list[socket.socket] = []
        self._start(self._accept)

    def close(self) -> None:
        """Ends it."""
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Ends all connections; new ones are taken."""
        while self._open:
            end = self._open.pop()
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # it has ended before

    def _start(self, function: Any, *args: Any) -> None:
        threading.Thread(target=function, args=args, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._host, timeout=10)
            except OSError:
                return
            far.settimeout(None)
            self._open += [near, far]
            self._start(self._carry, near, far, True)
            self._start(self._carry, far, near, False)

    def _carry(self, source: socket.socket, target: socket.socket, to_host: bool) -> None:
        try:
            while block := source.recv(BLOCK):
                target.sendall(block)
                if not to_host:
                    continue
                self.sent += len(block)
                if self.rate:
                    time.sleep(len(block) / self.rate)
                if self.cut_after and self.sent >= self.cut_after:
                    self.cut()
                    return
            target.shutdown(socket.SHUT_WR)
        except OSError:
            return
