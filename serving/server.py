"""The local server: both protocols in one event loop, the models behind them."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grpc

from tf_compemb.native_session import NativeError
from tf_compemb.serving.grpc_api import add_to_server
from tf_compemb.serving.http_server import Answer, HttpLimits, HttpServer, Request
from tf_compemb.serving.metrics import Metrics
from tf_compemb.serving.model_config import ModelConfig
from tf_compemb.serving.model_manager import LoadingOptions, ModelManager
from tf_compemb.serving.rest_api import RestApi, plain_refusal, refusal
from tf_compemb.serving.servable import Servable
from tf_compemb.serving.service import Service
from tf_compemb.serving.warm_up import warm_up
from tf_compemb.serving.workers import Workers

_log = logging.getLogger("tf_compemb.serving")

# Bytes of all requests that run or wait, unless four of the largest are more.
_BYTES_AT_ONCE = 256 << 20
# Those over REST count so many times: a parsed message takes about twice its bytes, JSON up to 31
# times as many, if it is empty lists.
_REST_COUNTS = 4


@dataclass(frozen=True)
class ServerOptions:
    """Addresses and bounds.

    Attributes:
        host: The address to listen on.
        grpc_port: Its port for gRPC; 0 for any that is free.
        rest_port: Its port for REST; 0 for any that is free.
        max_request_bytes: Of a request, decompressed, and of a tensor in it.
        max_requests: Requests that run or wait at the same time.
        threads: Requests that run at the same time.
        request_seconds: For a REST request to arrive and for its response to be taken.
        grace_seconds: For requests to end after a signal to stop.
    """

    host: str = "127.0.0.1"
    grpc_port: int = 8500
    rest_port: int = 8501
    max_request_bytes: int = 64 << 20
    max_requests: int = 256
    threads: int = 8
    request_seconds: float = 30.0
    grace_seconds: float = 30.0

    @property
    def bytes_at_once(self) -> int:
        """Bytes of all requests that run or wait; those over REST count four times."""
        return max(_BYTES_AT_ONCE, 4 * self.max_request_bytes)


class ModelServer:
    """Serves models over gRPC and REST.

    `load` first, then `start`, and `stop` at the end; the last two in one event loop.

    Args:
        configs: The models.
        options: Addresses and bounds.
        loading: How versions are found and loaded.

    Attributes:
        manager: The models.
        grpc_port: The port of gRPC, once started.
        rest_port: The port of REST, once started.
    """

    def __init__(
        self, configs: Sequence[ModelConfig], options: ServerOptions, loading: LoadingOptions
    ) -> None:
        self._options = options
        self._metrics = Metrics()
        self.manager = ModelManager(configs, loading, self._metrics, self._warm_up)

    def _warm_up(self, servable: Servable) -> None:
        started = time.perf_counter()
        if warm_up(servable, self._options.max_request_bytes):
            seconds = time.perf_counter() - started
            labels = {"model_path": str(servable.path), "status": "OK"}
            self._metrics.observe("model_warmup_latency", labels, seconds)

    def load(self) -> None:
        """Loads the models and begins to watch their directories; ports are still closed."""
        self.manager.start()

    async def start(self) -> None:
        """Opens the ports.

        Raises:
            OSError: A port is in use or an address is not this machine's.
        """
        options = self._options
        self._workers = Workers(options.threads, options.max_requests, options.bytes_at_once)
        service = Service(self.manager, self._metrics, options.max_request_bytes)
        self._rest_api = RestApi(service)
        limits = HttpLimits(
            options.max_request_bytes, options.bytes_at_once, options.request_seconds
        )
        self._http = HttpServer(self._respond, plain_refusal, limits)
        self.rest_port = await self._http.start(options.host, options.rest_port)
        # So many may be arriving, slowly perhaps; the workers take `max_requests` of them.
        arriving = 4 * options.max_requests
        self._grpc = grpc.aio.server(
            options=_grpc_options(options), maximum_concurrent_rpcs=arriving
        )
        add_to_server(self._grpc, service, self._workers)
        self.grpc_port = _bind(self._grpc, options.host, options.grpc_port)
        await self._grpc.start()

    async def _respond(self, request: Request) -> Answer:
        try:
            size = _REST_COUNTS * request.size()
            return await self._workers.run(self._rest_api.answer, request, size=size)
        except NativeError as error:
            return refusal(error)

    async def stop(self) -> None:
        """Answers the requests that are there, closes the ports and frees the models."""
        grace = self._options.grace_seconds
        await asyncio.gather(self._grpc.stop(grace), self._http.stop(grace))
        await self._workers.idle()
        self._workers.close()
        await asyncio.get_running_loop().run_in_executor(None, self.manager.close)


def _grpc_options(options: ServerOptions) -> list[tuple[str, Any]]:
    return [
        ("grpc.max_receive_message_length", options.max_request_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
        # A client that has vanished in the middle of a request is noticed.
        ("grpc.keepalive_time_ms", 60_000),
        ("grpc.keepalive_timeout_ms", 20_000),
    ]


def _bind(server: Any, host: str, port: int) -> int:
    # gRPC says only that it failed, and prints a trace.
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((host, port))
    address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    try:
        return server.add_insecure_port(address)
    except RuntimeError as error:
        raise OSError(f"gRPC cannot listen on {address}") from error
