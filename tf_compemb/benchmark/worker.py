"""The process that runs an engine's cases: one request a line on stdin, one answer on stdout.

A case runs only while its answer is awaited, so that processes taking turns never run at once.
"""

from __future__ import annotations

import ctypes
import gc
import importlib.util
import json
import os
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import IO, Any

from tf_compemb.benchmark.engines import ENGINES, UnavailableError

# A case is warmed up until it was called so often, or for so long, whichever comes first.
WARM_UP_CALLS = 5
WARM_UP_SECONDS = 5.0


def main(engine_name: str) -> int:
    """Answers requests until stdin ends.

    Args:
        engine_name: Key of `ENGINES`.
    """
    requests, answers = sys.stdin, _answers_only()
    engine = Worker(engine_name)
    for line in requests:
        request = json.loads(line)
        try:
            answer = getattr(engine, request.pop("do"))(**request)
        except UnavailableError as reason:
            answer = {"unavailable": str(reason)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
    return 0


def _answers_only() -> IO[str]:
    """Standard output for answers; what libraries print goes to standard error instead."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    return answers


class Worker:
    """What can be asked of an engine's process; each method returns what JSON can hold.

    Args:
        engine_name: Key of `ENGINES`.
    """

    def __init__(self, engine_name: str) -> None:
        self._engine = ENGINES[engine_name]
        self._cases: dict[str, Callable[[], Any]] = {}

    def start(self) -> dict[str, Any]:
        """Versions of what the engine needs, or what of it is missing."""
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        missing = [name for name in self._engine.needs if importlib.util.find_spec(name) is None]
        if missing:
            return {"missing": missing}
        module = self._module()
        details = module.details() if hasattr(module, "details") else {}
        return {"versions": {**_versions(module.PACKAGES), **details}}

    def prepare(self, name: str, task: str, settings: dict[str, Any]) -> dict[str, Any]:
        """Makes a case ready to be called."""
        self._cases[name] = self._module().prepare(task, settings)
        return {}

    def warm_up(self, name: str) -> dict[str, float]:
        """Calls a case until it is warm; the duration of the fastest call, in seconds."""
        case = self._cases[name]
        durations: list[float] = []
        while len(durations) < WARM_UP_CALLS and sum(durations) < WARM_UP_SECONDS:
            durations.append(_call(case)["seconds"])
        return {"seconds": min(durations)}

    def turn(self, name: str, calls: int, first_untimed: bool) -> dict[str, Any]:
        """Calls a case several times in a row.

        Args:
            name: The case.
            calls: How often.
            first_untimed: Whether one more call comes first, which brings into the caches what
                other processes' turns drove out.
        """
        case = self._cases[name]
        if first_untimed:
            case()
        return {"measures": [_call(case) for _ in range(calls)]}

    def release(self) -> dict[str, Any]:
        """Frees all cases."""
        self._cases.clear()
        for module in ("keras", "tf_keras"):
            if module in sys.modules:
                sys.modules[module].backend.clear_session()
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL(None).malloc_trim(0)
        return {}

    def _module(self) -> Any:
        return importlib.import_module(f"tf_compemb.benchmark.engines.{self._engine.module}")


def _call(case: Callable[[], Any]) -> dict[str, float]:
    started = time.perf_counter()
    found = case()
    seconds = time.perf_counter() - started
    return found if isinstance(found, dict) else {"seconds": seconds}


def _versions(packages: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
