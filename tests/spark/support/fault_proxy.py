"""A proxy in front of an HTTP server that loses requests, loses answers, lies about them, or is gone for a while."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

import attrs

from demo.config import free_port

#: Paths of commits to one table (``.../namespaces/mart/tables/result``).
COMMIT = r"/tables/[^/]+$"
#: Headers that speak of one connection, or that are made anew.
_HOP_BY_HOP = frozenset({"connection", "keep-alive", "transfer-encoding", "content-length", "host", "te", "upgrade"})


@attrs.define(kw_only=True, eq=False)
class Fault:
    """What happens to requests that match, and to how many of them.

    :param method: HTTP method; empty is any.
    :param path: regular expression to find in the path.
    :param skip: matching requests that pass first.
    :param times: requests it happens to then; None is all.
    :param landed: whether the server gets the request.
    :param status: what the client is answered; None is the server's answer if it landed, otherwise none: a reset connection.
    :param reset: the connection is reset in place of an answer, although the request may have landed.
    :param outage: seconds for which nobody listens afterwards, and all connections are reset.
    :param delay: seconds to wait before anything else.
    :param hold: the request waits until this is set, before the server gets it.
    """

    method: str = "POST"
    path: str = COMMIT
    skip: int = 0
    times: int | None = 1
    landed: bool = True
    status: int | None = None
    reset: bool = False
    outage: float = 0.0
    delay: float = 0.0
    hold: threading.Event | None = None
    #: Set as soon as it happens to a request.
    reached: threading.Event = attrs.field(factory=threading.Event, init=False)

    def takes(self, method: str, path: str) -> bool:
        """Say whether it happens to a request, and count it."""
        if self.method not in ("", method) or not re.search(self.path, path):
            return False
        if self.skip:
            self.skip -= 1
            return False
        if self.times is not None:
            if not self.times:
                return False
            self.times -= 1
        return True


@attrs.frozen(kw_only=True)
class Exchange:
    """One request as the log has it.

    :param landed: whether the server got it.
    :param upstream: what the server answered.
    :param answered: what the client was answered; None is a reset connection.
    :param fault: what happened to it.
    """

    method: str
    path: str
    landed: bool
    upstream: int | None
    answered: int | None
    fault: Fault | None


class FaultProxy:
    """Forwards to a server, except for what its faults say, for as long as the ``with`` block lasts.

    :param upstream: address of the server, ``http://host:port``.
    """

    def __init__(self, upstream: str) -> None:
        found = urlsplit(upstream)
        self.upstream = (found.hostname or "127.0.0.1", found.port or 80)
        self.port = free_port()
        self._lock = threading.Lock()
        self._faults: list[Fault] = []
        self._log: list[Exchange] = []
        self._server: _Server | None = None
        self._outage: threading.Thread | None = None

    @property
    def address(self) -> str:
        """Where it answers."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def log(self) -> list[Exchange]:
        """All requests so far, in the order of their ends."""
        with self._lock:
            return list(self._log)

    def commits(self) -> list[Exchange]:
        """Return the commits to tables so far."""
        return [e for e in self.log if e.method == "POST" and re.search(COMMIT, e.path)]

    def add(self, fault: Fault) -> Fault:
        """Let something happen to requests from now on; of several that match, the one added first does."""
        with self._lock:
            self._faults.append(fault)
        return fault

    def clear(self) -> None:
        """Let everything pass from now on, and forget the log; an outage lasts until its end."""
        self.wait_until_up()
        with self._lock:
            self._faults.clear()
            self._log.clear()

    def outage(self, seconds: float) -> None:
        """Be gone from now on: connections are reset, new ones refused. Returns at once."""
        with self._lock:
            if self._outage is not None and self._outage.is_alive():
                return
            server, self._server = self._server, None
            if server is None:
                return
            self._outage = threading.Thread(target=self._be_gone, args=(server, seconds), daemon=True)
            self._outage.start()

    def wait_until_up(self) -> None:
        """Wait for the end of an outage."""
        with self._lock:
            outage = self._outage
        if outage is not None:
            outage.join()

    def __enter__(self) -> FaultProxy:  # noqa: PYI034 - typing.Self is not in Python 3.10
        """Listen."""
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop listening."""
        self.wait_until_up()
        with self._lock:
            server, self._server = self._server, None
            for fault in self._faults:
                if fault.hold is not None:
                    fault.hold.set()
        if server is not None:
            server.go_away()

    def _listen(self) -> None:
        server = _Server(("127.0.0.1", self.port), self)
        with self._lock:
            self._server = server
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _be_gone(self, server: _Server, seconds: float) -> None:
        server.go_away()
        time.sleep(seconds)
        self._listen()

    def fault_for(self, method: str, path: str) -> Fault | None:
        """Return what happens to a request."""
        with self._lock:
            found = next((f for f in self._faults if f.takes(method, path)), None)
        if found is not None:
            found.reached.set()
        return found

    def note(self, exchange: Exchange) -> None:
        """Keep an exchange in the log."""
        with self._lock:
            self._log.append(exchange)


class _Server(ThreadingHTTPServer):
    """Remembers its connections, to be able to reset them."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], proxy: FaultProxy) -> None:
        self.proxy = proxy
        self._open: set[socket.socket] = set()
        self._guard = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._guard:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._guard:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up, and connections are reset on purpose: neither is an error here."""

    def go_away(self) -> None:
        """Refuse new connections and reset the others."""
        self.shutdown()
        self.server_close()
        with self._guard:
            connections = list(self._open)
        for connection in connections:
            reset(connection)


def reset(connection: socket.socket) -> None:
    """End a connection with a reset, as a machine does that has lost it."""
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        # A reader in another thread keeps the socket open beyond close(); this wakes it.
        connection.shutdown(socket.SHUT_RD)
        connection.close()


class _Handler(BaseHTTPRequestHandler):
    """Handles the requests of one connection."""

    protocol_version = "HTTP/1.1"
    server: _Server

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  (the base's signature)
        """Say nothing: the proxy has a log of its own."""

    def _forwarded(self) -> None:
        proxy, body = self.server.proxy, self._body()
        fault = proxy.fault_for(self.command, self.path)
        if fault is not None:
            time.sleep(fault.delay)
            if fault.hold is not None:
                fault.hold.wait()
        landed = fault is None or fault.landed
        answer = self._ask(body) if landed else None
        status = answer.status if answer is not None else None
        told = fault.status if fault is not None and fault.status is not None else status
        if fault is not None and (fault.reset or fault.outage):
            told = None
        proxy.note(
            Exchange(method=self.command, path=self.path, landed=landed, upstream=status, answered=told, fault=fault)
        )
        if fault is not None and fault.outage:
            proxy.outage(fault.outage)
        if told is None:
            self.close_connection = True
            reset(self.connection)
        elif fault is not None and fault.status is not None:
            self._answer(told, [("Content-Type", "application/json")], _error(told))
        elif answer is not None:
            self._answer(answer.status, answer.headers, answer.body)

    do_GET = do_POST = do_HEAD = do_DELETE = _forwarded  # noqa: N815  (names that the base looks up)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", "").lower():
            return b"".join(self._chunks())
        return self.rfile.read(int(self.headers.get("Content-Length") or 0))

    def _chunks(self) -> Iterator[bytes]:
        while size := int(self.rfile.readline().split(b";")[0], 16):
            yield self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()

    def _ask(self, body: bytes) -> _Answer:
        connection = http.client.HTTPConnection(*self.server.proxy.upstream, timeout=120)
        try:
            headers = {k: v for k, v in self.headers.items() if k.lower() not in _HOP_BY_HOP}
            connection.request(self.command, self.path, body=body or None, headers=headers)
            response = connection.getresponse()
            return _Answer(status=response.status, headers=response.getheaders(), body=response.read())
        finally:
            connection.close()

    def _answer(self, status: int, headers: list[tuple[str, str]], body: bytes) -> None:
        self.send_response(status)
        for key, value in headers:
            if key.lower() not in _HOP_BY_HOP:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


@attrs.frozen(kw_only=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes


def _error(status: int) -> bytes:
    return f'{{"error": {{"message": "made up by a test", "type": "InternalServerError", "code": {status}}}}}'.encode()
