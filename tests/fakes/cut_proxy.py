"""A TCP proxy on loopback whose connections a test can cut: the network between a program and its server."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

CHUNK_BYTES = 65_536


class CutProxy:
    """Forwards to a port of this machine; while it is cut it hangs up on everybody, at once and on arrival.

    Args:
        target: The port of 127.0.0.1 that it forwards to.

    Attributes:
        before_answer: Called before each piece of an answer is forwarded.
    """

    before_answer: Callable[[], object] | None = None

    def __init__(self, target: int) -> None:
        self._target = target
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._is_cut = False
        self.port: int = self._listener.getsockname()[1]

    @contextlib.contextmanager
    def running(self) -> Iterator[CutProxy]:
        """Forward until the block ends."""
        threading.Thread(target=self._accept, daemon=True).start()
        try:
            yield self
        finally:
            # Closing alone would not wake up the thread that waits in accept().
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            self.cut()

    def cut(self) -> None:
        """Close all connections, and each new one."""
        with self._lock:
            self._is_cut = True
            sockets, self._open = self._open, set()
        for each in sockets:
            _hang_up(each)

    def restore(self) -> None:
        """Forward again."""
        with self._lock:
            self._is_cut = False

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # the block has ended
            with self._lock:
                if self._is_cut:
                    _hang_up(client)
                    continue
                server = socket.create_connection(("127.0.0.1", self._target))
                self._open |= {client, server}
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            is_server = source.getpeername()[1] == self._target
            while chunk := source.recv(CHUNK_BYTES):
                if is_server and self.before_answer is not None:
                    self.before_answer()
                sink.sendall(chunk)
        with self._lock:
            self._open -= {source, sink}
        _hang_up(source)
        _hang_up(sink)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
