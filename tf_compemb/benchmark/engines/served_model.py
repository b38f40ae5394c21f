"""The exported DLRM in TensorFlow's C++ session, as TF-Serving runs it; no network in between."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from itertools import cycle
from pathlib import Path
from typing import Any

from tf_compemb.benchmark import inputs
from tf_compemb.benchmark.engines.child_program import run_program
from tf_compemb.benchmark.methods import METHODS

PACKAGES = ("tensorflow", "numpy")


def prepare(task: str, settings: dict[str, Any]) -> Callable[[], None]:
    """Exports an untrained model, once for each method and size; the call is one request."""
    del task
    sizes = inputs.scaled_cardinalities(settings["rows"])
    session = _session(settings["method"], settings["rows"], settings["dim"])
    batch = settings["batch"]
    pairs = zip(inputs.dense_batches(batch), inputs.id_batches(sizes, batch), strict=True)
    requests = cycle([{"dense": dense, "categorical": ids} for dense, ids in pairs])

    def request() -> None:
        session.run("serving_default", next(requests), ["click_probability"])

    return request


@functools.cache
def _session(method: str, rows: int, dim: int) -> Any:
    """Kept until the process ends, and shared by the batch sizes."""
    from tf_compemb.native_session import NativeSession

    name, options = METHODS[method]
    sizes = ",".join(map(str, inputs.scaled_cardinalities(rows)))
    arguments = ["--untrained", "--embedding", name, "--cardinalities", sizes, "--dim", str(dim)]
    if "collisions" in options:
        arguments += ["--collisions", str(options["collisions"])]
    folder = Path(_folder().name) / f"{method}_{rows}"
    run_program("tf_compemb.export", *arguments, "--name", "model", "--out", folder)
    return NativeSession(folder / "model" / "1")


@functools.cache
def _folder() -> tempfile.TemporaryDirectory:
    """Kept until the process ends."""
    return tempfile.TemporaryDirectory(prefix="tf_compemb_benchmark_")
