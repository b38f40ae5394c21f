"""HTTP/1.1 on asyncio: h11 reads and writes the protocol, this bounds size, time and number."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import h11

from tf_compemb.serving.gzip_content import declared_size, decompressed

_READ_BYTES = 65536
_HEADER_BYTES = 16384
_LINGER_SECONDS = 1.0


@dataclass(frozen=True)
class HttpLimits:
    """What a client may take.

    Attributes:
        body_bytes: Bytes of a request's content, decompressed.
        held_bytes: Bytes of the contents of all requests that arrive or are being answered, as they
            were sent.
        request_seconds: From a request's first byte to its last, and for taking the response.
        idle_seconds: Between two requests on one connection.
        connections: Open at the same time.
    """

    body_bytes: int
    held_bytes: int = 256 << 20
    request_seconds: float = 30.0
    idle_seconds: float = 120.0
    connections: int = 512


@dataclass(frozen=True)
class Request:
    """A request that has arrived.

    Attributes:
        method: Such as `"POST"`.
        target: The path, with its query if it has one.
        body: The bytes after the head.
        gzipped: Whether these are gzip.
        started: `time.perf_counter()` of its arrival.
    """

    method: str
    target: str
    body: bytes
    gzipped: bool
    started: float

    def content(self) -> bytes:
        """The content, decompressed.

        Raises:
            NativeError: INVALID_ARGUMENT: it is no gzip.
        """
        return decompressed(self.body) if self.gzipped else self.body

    def size(self) -> int:
        """Bytes of its content, decompressed."""
        return declared_size(self.body) if self.gzipped else len(self.body)


@dataclass(frozen=True)
class Answer:
    """A response.

    Attributes:
        status: Such as 200.
        body: The content.
        content_type: Its type.
    """

    status: int
    body: bytes
    content_type: str = "application/json"


class _Refused(Exception):  # noqa: N818  An outcome, not an error of the program.
    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


Responder = Callable[[Request], Awaitable[Answer]]


class HttpServer:
    """Reads requests and has them answered.

    Args:
        respond: From a request to the response.
        on_error: From a status and a message to the response.
        limits: What a client may take.
    """

    def __init__(
        self,
        respond: Responder,
        on_error: Callable[[int, str], Answer],
        limits: HttpLimits,
    ) -> None:
        self._respond, self._on_error, self._limits = respond, on_error, limits
        self._connections: dict[asyncio.Task[None], _Connection] = {}
        self._held = _Held(limits.held_bytes)
        self._stopping = False

    async def start(self, host: str, port: int) -> int:
        """Listens; returns the port.

        Raises:
            OSError: The address cannot be used.
        """
        self._server = await asyncio.start_server(self._serve, host, port, limit=_READ_BYTES)
        return self._server.sockets[0].getsockname()[1]

    async def stop(self, grace_seconds: float) -> None:
        """Takes no new request, lets the others finish for so long, then closes everything."""
        self._stopping = True
        self._server.close()
        for task, connection in list(self._connections.items()):
            if not connection.busy:
                task.cancel()
        if self._connections:
            _, late = await asyncio.wait(list(self._connections), timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        connection = _Connection(reader, writer, self._limits, self._held)
        self._connections[task] = connection
        try:
            if len(self._connections) > self._limits.connections:
                await self._refuse(connection, 503, "Too many connections")
                return
            while not self._stopping and await self._exchange(connection):
                pass
        except (OSError, asyncio.CancelledError, asyncio.TimeoutError, h11.LocalProtocolError):
            pass  # The client has gone, or must go; nobody is left to be told.
        finally:
            connection.let_go()
            del self._connections[task]
            writer.transport.abort()

    async def _exchange(self, connection: _Connection) -> bool:
        """One request and its response; whether the connection stays open."""
        try:
            received = await connection.request()
        except _Refused as refused:
            await self._refuse(connection, refused.status, str(refused))
            return False
        except h11.RemoteProtocolError as error:
            await self._refuse(connection, error.error_status_hint, f"Bad request: {error}")
            return False
        if received is None:
            return False
        return await connection.send(await self._respond(received), last=self._stopping)

    async def _refuse(self, connection: _Connection, status: int, message: str) -> None:
        await connection.send(self._on_error(status, message), last=True)


class _Held:
    """Bytes of the contents of all connections' requests."""

    def __init__(self, most: int) -> None:
        self._most, self._bytes = most, 0

    def take(self, size: int) -> None:
        if self._bytes + size > self._most:
            raise _Refused(429, f"The server has {self._bytes} bytes of requests; try again later")
        self._bytes += size

    def let_go(self, size: int) -> None:
        self._bytes -= size


class _Connection:
    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        limits: HttpLimits,
        held: _Held,
    ) -> None:
        self._reader, self._writer, self._limits = reader, writer, limits
        self._held, self._holds = held, 0
        self._http = h11.Connection(h11.SERVER, max_incomplete_event_size=_HEADER_BYTES)
        self._head_only = self._gzipped = False
        self.busy = False
        writer.transport.set_write_buffer_limits(0)  # To drain is to hand over everything.

    async def request(self) -> Request | None:
        """The next request; None when the client has closed."""
        if self._http.trailing_data[0] == b"":
            data = await asyncio.wait_for(self._reader.read(_READ_BYTES), self._limits.idle_seconds)
            self._http.receive_data(data)
            if not data:
                return None
        self.busy = True
        started = time.perf_counter()
        try:
            head, body = await asyncio.wait_for(self._read(), self._limits.request_seconds)
        except asyncio.TimeoutError:
            raise _Refused(408, "The request took too long to arrive") from None
        target = head.target.decode("latin-1")
        return Request(head.method.decode(), target, body, self._gzipped, started)

    async def _read(self) -> tuple[h11.Request, bytes]:
        head, parts, size = None, [], 0
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if head and self._http.they_are_waiting_for_100_continue:
                    await self._write(h11.InformationalResponse(status_code=100, headers=[]))
                self._http.receive_data(await self._reader.read(_READ_BYTES))
            elif isinstance(event, h11.Request):
                head = event
                self._check_head(head)
            elif isinstance(event, h11.Data):
                size += len(event.data)
                self._check_size(size)
                self._held.take(len(event.data))
                self._holds = size
                parts.append(bytes(event.data))
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                body = b"".join(parts)
                self._check_declared(declared_size(body) if self._gzipped else 0)
                return head, body
            else:
                raise ConnectionResetError

    def _check_head(self, head: h11.Request) -> None:
        self._head_only = head.method == b"HEAD"
        self._gzipped = False
        for name, value in head.headers:
            if name == b"content-length":
                self._check_size(int(value))
            if name == b"content-encoding" and value.lower() != b"identity":
                self._gzipped = value.lower() in (b"gzip", b"x-gzip")
                if not self._gzipped:
                    given = value.decode("latin-1")[:50]
                    raise _Refused(415, f"Content-Encoding {given} is not taken; send gzip or none")

    def _check_size(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise _Refused(413, f"The request has more than {self._limits.body_bytes} bytes")

    def _check_declared(self, size: int) -> None:
        if size > self._limits.body_bytes:
            raise _Refused(
                413,
                f"The gzip content declares {size} bytes, more than {self._limits.body_bytes}",
            )

    async def send(self, answer: Answer, *, last: bool) -> bool:
        """Sends a response; whether another request may follow."""
        headers = [
            ("Content-Type", answer.content_type),
            ("Content-Length", str(len(answer.body))),
        ]
        if last:
            headers.append(("Connection", "close"))
        reason = http.client.responses.get(answer.status, "")
        await self._write(
            h11.Response(status_code=answer.status, headers=headers, reason=reason.encode())
        )
        if not self._head_only:
            await self._write(h11.Data(data=answer.body))
        await self._write(h11.EndOfMessage())
        self.let_go()
        self.busy = False
        if self._http.our_state is h11.MUST_CLOSE or self._http.their_state is not h11.DONE:
            await self._drain_and_close()
            return False
        self._http.start_next_cycle()
        return True

    def let_go(self) -> None:
        """The request's content is needed no more."""
        self._held.let_go(self._holds)
        self._holds = 0

    async def _write(self, event: h11.Event) -> None:
        data = self._http.send(event)
        if data:
            self._writer.write(data)
            await asyncio.wait_for(self._writer.drain(), self._limits.request_seconds)

    async def _drain_and_close(self) -> None:
        # What is unread would make the system reset the connection, and the client lose the answer.
        with contextlib.suppress(OSError, asyncio.TimeoutError):
            self._writer.write_eof()
            await asyncio.wait_for(self._read_to_end(), _LINGER_SECONDS)

    async def _read_to_end(self) -> None:
        while await self._reader.read(_READ_BYTES):
            pass
