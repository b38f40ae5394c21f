"""The other end of `worker`: a process for each engine, asked over pipes."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import Any

import tf_compemb
from tf_compemb._child_process import lifeline
from tf_compemb.benchmark.engines import ENGINES, UnavailableError
from tf_compemb.benchmark.other_load import seconds_of

# The peers' interpreter has no tf_compemb: this gives it ours, and nothing that lies beside it.
_START = """
import importlib.util, sys
folder, engine, parent = sys.argv[1:]
spec = importlib.util.spec_from_file_location(
    "tf_compemb", folder + "/__init__.py", submodule_search_locations=[folder]
)
package = sys.modules["tf_compemb"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(package)
from tf_compemb._child_process import end_with
end_with(int(parent))
from tf_compemb.benchmark.worker import main
sys.exit(main(engine))
"""


class WorkerError(Exception):
    """A case failed, or its process ended; the message says what the process said."""


class MissingPackagesError(Exception):
    """What an engine needs is not installed; the message says what to install."""


class WorkerProcess:
    """The process of one engine.

    Args:
        engine_name: Key of `ENGINES`.
        python: The interpreter.

    Raises:
        MissingPackagesError: The engine needs a package that the interpreter does not have.
        WorkerError: The process did not start.
    """

    def __init__(self, engine_name: str, python: str) -> None:
        engine = ENGINES[engine_name]
        self._log = tempfile.TemporaryFile()  # noqa: SIM115, closed by `close`
        folder = str(Path(tf_compemb.__file__).parent)
        try:
            self._process = subprocess.Popen(
                [python, "-c", _START, folder, engine_name, str(lifeline())],
                pass_fds=[lifeline()],
                env={**os.environ, "PYTHONUNBUFFERED": "1", **engine.environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
        except OSError as error:
            raise WorkerError(f"{python} does not run: {error.strerror}") from error
        self._requests: Any = self._process.stdin
        self._answers: Any = self._process.stdout
        try:
            started = self.ask("start")
        except WorkerError:
            self.close()
            raise
        if "missing" in started:
            self.close()
            missing = ", ".join(started["missing"])
            raise MissingPackagesError(f"no {missing}: {engine.install(python)}")
        self.versions: dict[str, str] = started["versions"]

    @property
    def pid(self) -> int:
        """The process' number."""
        return self._process.pid

    def ask(self, request: str, **arguments: Any) -> dict[str, Any]:
        """The answer of a method of `worker.Worker`.

        Raises:
            WorkerError: The method raised, or the process ended.
            UnavailableError: The case cannot run here.
        """
        try:
            self._requests.write(json.dumps({"do": request, **arguments}) + "\n")
            self._requests.flush()
            line = self._answers.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise WorkerError(
                f"the process ended with {self._process.wait()}: {self._last_words()}"
            )
        answer = json.loads(line)
        if "unavailable" in answer:
            raise UnavailableError(answer["unavailable"])
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._log.seek(0)
        lines = self._log.read().decode(errors="replace").strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        """Ends the process."""
        with contextlib.suppress(BrokenPipeError):
            self._requests.close()
        try:
            self._process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()
        self._log.close()


class Workers:
    """The processes of a run, each started when it is first needed.

    Args:
        peer_python: The interpreter for engines that are peers.
        python: The interpreter for all others.
    """

    def __init__(self, python: str, peer_python: str) -> None:
        self._pythons = (python, peer_python)
        self._running: dict[str, WorkerProcess] = {}
        self._missing: dict[str, MissingPackagesError] = {}
        self.versions: dict[str, dict[str, str]] = {}

    def get(self, engine_name: str) -> WorkerProcess:
        """The process of an engine.

        Raises:
            MissingPackagesError: The engine is not installed.
            WorkerError: Its process did not start.
        """
        if engine_name in self._missing:
            raise self._missing[engine_name]
        if engine_name not in self._running:
            python = self._pythons[ENGINES[engine_name].is_peer]
            try:
                self._running[engine_name] = WorkerProcess(engine_name, python)
            except MissingPackagesError as missing:
                self._missing[engine_name] = missing
                raise
            self.versions[engine_name] = self._running[engine_name].versions
        return self._running[engine_name]

    def processor_seconds(self) -> float:
        """Processor time so far of this process, those it started, and their children."""
        return seconds_of([os.getpid(), *(worker.pid for worker in self._running.values())])

    def end(self, engine_name: str) -> None:
        """Ends an engine's process, if it runs."""
        worker = self._running.pop(engine_name, None)
        if worker is not None:
            worker.close()

    def end_all_but(self, engine_names: Collection[str]) -> None:
        """Ends the processes of all other engines."""
        for name in set(self._running) - set(engine_names):
            self.end(name)

    def release(self) -> None:
        """Frees the cases of all processes; one that cannot is ended."""
        for name, worker in list(self._running.items()):
            try:
                worker.ask("release")
            except WorkerError:
                self.end(name)

    def close(self) -> None:
        """Ends all processes."""
        for name in list(self._running):
            self.end(name)
