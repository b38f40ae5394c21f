"""Local servers for measurements: a fresh process for each model, with how long it took to load."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tf_compemb._child_process import start
from tf_compemb.serving.client import RestClient, ServingError
from tf_compemb.training.errors import UserError

_POLL_SECONDS = 0.02
_STOP_SECONDS = 30


class LocalServer:
    """A process that serves one model on free ports of this machine, while the context lasts.

    Args:
        name: The model's name.
        directory: Its exported folder.
        onednn: Whether TensorFlow's oneDNN is on. Its allocator rounds up and gives nothing back.
        timeout: Seconds that starting and loading may take.

    Attributes:
        pid: The process.
        grpc: `host:port`.
        rest: URL of the REST API.
        start_seconds: From starting the process to the model's being available: the
            interpreter's and TensorFlow's start and the loading of the model.
    """

    def __init__(self, name: str, directory: Path, *, onednn: bool, timeout: float = 600.0):
        self._name = name
        self._directory = directory
        self._onednn = onednn
        self._timeout = timeout
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process.

    def __enter__(self) -> LocalServer:
        grpc_port, rest_port = _free_ports(2)
        self.grpc, self.rest = f"127.0.0.1:{grpc_port}", f"http://127.0.0.1:{rest_port}"
        told = ["serve", f"{self._name}={self._directory.resolve()}"]
        told += ["--grpc-port", str(grpc_port), "--rest-port", str(rest_port)]
        environment = {**os.environ, "TF_ENABLE_ONEDNN_OPTS": "1" if self._onednn else "0"}
        started = time.perf_counter()
        streams = {"stdin": subprocess.DEVNULL, "stdout": self._log, "stderr": self._log}
        self._process = start("tf_compemb.serving", told, env=environment, **streams)
        self.pid = self._process.pid
        try:
            self._wait_until_available(started + self._timeout)
        except BaseException:
            self._stop()
            raise
        self.start_seconds = time.perf_counter() - started
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop()

    def _wait_until_available(self, deadline: float) -> None:
        client = RestClient(self.rest)
        try:
            while True:
                time.sleep(_POLL_SECONDS)
                if self._process.poll() is not None:
                    raise UserError(f"The server of {self._directory} ended: {self._reason()}")
                try:
                    state = client.state(self._name)
                except ServingError as waiting:
                    state = waiting.code
                if state == "AVAILABLE":
                    return
                if time.perf_counter() > deadline:
                    raise UserError(
                        f"{self._directory} was not available after {self._timeout:g} s ({state}): "
                        f"{self._last_line()}"
                    )
        finally:
            client.close()

    def _reason(self) -> str:
        status = self._process.returncode
        if status == 0:  # A server that is asked to stop does so cleanly.
            return "something else stopped it."
        if status is not None and status < 0:
            return f"it was killed by {signal.Signals(-status).name}."
        return self._last_line()

    def _last_line(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode("utf-8", "replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing."

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()


def _free_ports(count: int) -> list[int]:
    """Ports that nothing listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [opened.getsockname()[1] for opened in sockets]
    finally:
        for opened in sockets:
            opened.close()
