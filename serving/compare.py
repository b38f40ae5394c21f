"""Memory, load time, latency and agreement of served models, measured side by side.

Memory is `RssAnon` of a fresh process that has loaded one model, less that of the same server with
a model that does nothing; and, for the tables alone, less that with the same model over small
tables. All are measured in the same run. Latency is measured afterwards with all servers up, the
models taking turns.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tf_compemb.serving.agreement import agreement
from tf_compemb.serving.client import Arrays, Client, GrpcClient, RestClient
from tf_compemb.serving.compare_inputs import Rows
from tf_compemb.serving.compare_models import (
    EMPTY,
    ComparedModel,
    have_same_weights,
    model_card,
    newest_version,
    stored_bytes,
    theoretical_bytes,
)
from tf_compemb.serving.compare_server import LocalServer
from tf_compemb.serving.cut_model import write_cut_model
from tf_compemb.serving.empty_model import write_empty_model
from tf_compemb.serving.latency import Case, Latency, measure_latency
from tf_compemb.serving.memory import gpu_bytes, process_memory


@dataclass(frozen=True)
class Settings:
    """How much is measured.

    Attributes:
        repeats: Fresh processes for each model, and rounds of calls.
        calls: Calls of one kind to one model in a round.
        batches: Rows of a request, ascending.
        onednn: Whether oneDNN is on in local servers.
        seed: Of drawn ids.
    """

    repeats: int = 5
    calls: int = 100
    batches: tuple[int, ...] = (1, 64, 1024)
    onednn: bool = False
    seed: int = 0


class Progress:
    """Told how far a comparison is; this one says nothing."""

    def start(self, steps: int) -> None:
        """`steps` calls of `step` follow."""

    def step(self, what: str) -> None:
        """`what` begins."""


def compare(
    models: Sequence[ComparedModel], rows: Rows, settings: Settings, progress: Progress
) -> dict[str, Any]:
    """Measures everything.

    Args:
        models: The first one is what the others are compared with.
        rows: What is sent, at least as many as the largest batch.
        settings: How much is measured.
        progress: Told about each step.

    Returns:
        `empty` (memory and start of the local server with a model that does nothing; None where no
        local server is started), `running_empty` (memory of a running one) and `models`, one entry
        each with `memory`, `cut` (its twin with small tables), `latency` and `agreement`; every
        measured number is a list, one entry a repeat.

    Raises:
        ServingError: A server refused, or cannot be reached.
        MeasurementError: A process's memory cannot be read.
        UserError: A server did not start.
    """
    running_empty = [model for model in models if model.name == EMPTY and model.is_running]
    models = [model for model in models if model not in running_empty]
    local = [model for model in models if not model.is_running]
    protocols = sum((m.grpc is not None) + (m.rest is not None) for m in models) + 2 * len(local)
    kinds = protocols * len(settings.batches)
    progress.start(len(local) + settings.repeats * (2 * len(local) + bool(local) + kinds))
    _check_running(models, rows)
    cards = {model.name: model_card(model.directory) for model in models if model.directory}
    found: dict[str, Any] = {"empty": None, "running_empty": None}
    samples: dict[str, dict[str, list[float]]] = {}
    twins: dict[str, dict[str, Any]] = {}
    if local:
        with tempfile.TemporaryDirectory() as folder:
            cut = _cut_models(local, cards, Path(folder), progress)
            write_empty_model(Path(folder) / EMPTY)
            empty = ComparedModel(EMPTY, Path(folder) / EMPTY)
            served = [*local, *cut.values(), empty]
            samples = _memory_of_fresh_servers(served, settings, progress)
            twins = {
                name: {
                    "theoretical_bytes": theoretical_bytes(model_card(twin.directory)),
                    "memory": samples[twin.name],
                }
                for name, twin in cut.items()
                if twin.directory is not None
            }
        found["empty"] = samples[EMPTY]
    if running_empty and running_empty[0].pid is not None:
        found["running_empty"] = _reading(running_empty[0].pid)
    with _all_running(models, settings.onednn) as running:
        outputs, latencies = _call_all(running, rows, settings, progress)
        for model in running:
            if model.pid is not None:
                after = samples.setdefault(model.name, _reading(model.pid))
                after["anonymous_bytes_after_calls"] = [process_memory(model.pid).anonymous_bytes]
    found["models"] = [
        {
            "name": model.name,
            "directory": str(model.directory) if model.directory else None,
            "running": [address for address in (model.grpc, model.rest) if address] or None,
            "card": cards.get(model.name),
            "theoretical_bytes": (
                theoretical_bytes(cards[model.name]) if model.name in cards else None
            ),
            "saved_model_bytes": (
                stored_bytes(newest_version(model.directory)) if model.directory else None
            ),
            "memory": samples.get(model.name),
            "cut": twins.get(model.name),
            "latency": [_latency(one) for one in latencies if one.case.model == model.name],
            "agreement": _agreements(models[0].name, model.name, outputs, cards),
        }
        for model in models
    ]
    return found


def _check_running(models: Sequence[ComparedModel], rows: Rows) -> None:
    """Calls every running server once: what is wrong with one is told before the measurements."""
    for model in models:
        for client in _clients(model).values():
            with contextlib.closing(client):
                client.send(client.request(model.name, rows.first(1), rows.signature, None))
        if model.pid is not None:
            process_memory(model.pid)


def _clients(model: ComparedModel) -> dict[str, Client]:
    """A connection for each protocol whose address is known."""
    clients: dict[str, Client] = {}
    if model.grpc:
        clients["grpc"] = GrpcClient(model.grpc)
    if model.rest:
        clients["rest"] = RestClient(model.rest)
    return clients


def _cut_models(
    models: Sequence[ComparedModel], cards: dict[str, Any], folder: Path, progress: Progress
) -> dict[str, ComparedModel]:
    """The twin with small tables of each model that has one."""
    found = {}
    for model in models:
        progress.step(f"{model.name}: twin with small tables")
        twin = ComparedModel(f"{model.name}-cut", folder / f"{model.name}-cut")
        if write_cut_model(cards[model.name], folder / twin.name):
            found[model.name] = twin
    return found


def _memory_of_fresh_servers(
    models: Sequence[ComparedModel], settings: Settings, progress: Progress
) -> dict[str, dict[str, list[float]]]:
    samples: dict[str, dict[str, list[float]]] = {}
    for _ in range(settings.repeats):
        for model in models:
            progress.step(f"memory of {model.name}")
            assert model.directory is not None
            with LocalServer(model.name, model.directory, onednn=settings.onednn) as server:
                reading = _reading(server.pid)
                reading["start_seconds"] = [server.start_seconds]
            ours = samples.setdefault(model.name, {name: [] for name in reading})
            for name, value in reading.items():
                ours[name] += value
    return samples


def _reading(pid: int) -> dict[str, list[float]]:
    memory = process_memory(pid)
    reading: dict[str, list[float]] = {name: [value] for name, value in asdict(memory).items()}
    on_gpu = gpu_bytes(pid)
    if on_gpu is not None:
        reading["gpu_bytes"] = [on_gpu]
    return reading


@contextlib.contextmanager
def _all_running(models: Sequence[ComparedModel], onednn: bool) -> Iterator[list[ComparedModel]]:
    """The models with addresses: servers are started for those that have none."""
    with contextlib.ExitStack() as stack:
        running = []
        for model in models:
            if not model.is_running:
                assert model.directory is not None
                server = LocalServer(model.name, model.directory, onednn=onednn)
                stack.enter_context(server)
                model = ComparedModel(
                    model.name, model.directory, server.grpc, server.rest, server.pid
                )
            running.append(model)
        yield running


def _call_all(
    running: Sequence[ComparedModel], rows: Rows, settings: Settings, progress: Progress
) -> tuple[dict[str, dict[str, Arrays]], list[Latency]]:
    """Each model's outputs over each protocol on all rows, and the latencies."""
    with contextlib.ExitStack() as stack:
        clients: dict[str, dict[str, Client]] = {}
        for model in running:
            clients[model.name] = _clients(model)
            for client in clients[model.name].values():
                stack.callback(client.close)
        cases = [
            Case(
                model.name,
                protocol,
                batch,
                clients[model.name][protocol],
                clients[model.name][protocol].request(
                    model.name, rows.first(batch), rows.signature, None
                ),
            )
            for batch in settings.batches
            for protocol in ("grpc", "rest")
            for model in running
            if protocol in clients[model.name]
        ]
        outputs: dict[str, dict[str, Arrays]] = {model.name: {} for model in running}
        for case in cases:
            if case.batch == settings.batches[-1]:
                answer = case.client.decode(case.client.send(case.request))
                outputs[case.model][case.protocol] = answer
        latencies = measure_latency(
            cases,
            repeats=settings.repeats,
            calls=settings.calls,
            report=lambda case: progress.step(f"{case.protocol}, batch {case.batch}: {case.model}"),
        )
    return outputs, latencies


def _latency(latency: Latency) -> dict[str, Any]:
    return {
        "protocol": latency.case.protocol,
        "batch": latency.case.batch,
        "p50_ms": latency.percentile_ms(50).tolist(),
        "p99_ms": latency.percentile_ms(99).tolist(),
        "rows_per_second": latency.rows_per_second().tolist(),
    }


def _agreements(
    reference: str, name: str, outputs: dict[str, dict[str, Arrays]], cards: dict[str, Any]
) -> dict[str, Any]:
    """With the reference, and between this model's two protocols."""
    first, second = (next(iter(outputs[model].values())) for model in (reference, name))
    ours, theirs = cards.get(name), cards.get(reference)
    same = None if ours is None or theirs is None else have_same_weights(ours, theirs)
    found = asdict(
        agreement(
            first,
            second,
            same_weights=name == reference or same,
            trained=not any(card and card.get("trained") is False for card in (ours, theirs)),
        )
    )
    protocols = [answer["click_probability"].ravel() for answer in outputs[name].values()]
    found["largest_difference_grpc_rest"] = (
        float(np.max(np.abs(protocols[0] - protocols[1]))) if len(protocols) == 2 else None
    )
    return found
