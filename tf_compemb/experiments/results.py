"""`results.csv` and `timings.csv`: a row for each run."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tf_compemb.experiments.plan import Point, Run
from tf_compemb.experiments.run_store import RunStore
from tf_compemb.training.run_directory import write_csv

_POINT = ("experiment", "model", "series", "embedding", "varied", "value", "data")
_RUN = ("optimizer", "learning_rate", "seed", "status", "note", "run")
_METRICS = (
    *("test_loss", "test_auc", "test_accuracy"),
    *("validation_loss", "validation_auc", "validation_accuracy"),
    *("parameters", "embedding_parameters", "embedding_bytes", "embedding_training_bytes"),
    *("optimizer_bytes", "epochs", "best_epoch", "batch_size", "train_rows"),
    "synthetic",
)
COLUMNS = (*_POINT, *_RUN, *_METRICS)
# Apart, because they differ each time.
TIMING_COLUMNS = (
    *("run", "experiment", "model", "series", "value", "optimizer", "seed"),
    *("milliseconds_per_step", "examples_per_second", "training_seconds", "wall_seconds"),
    "peak_rss_bytes",
)
FINISHED, FAILED, MISSING, NOT_RUN = "finished", "failed", "missing", "not run"


def result_rows(
    points: Sequence[Point],
    runs: Sequence[Run],
    store: RunStore,
    reasons: Mapping[str, str],
    fingerprint: str,
) -> list[dict[str, Any]]:
    """One row for each run, in the order of the grid, and one for each point that has none.

    Args:
        points: Of the grid.
        runs: Of the points.
        store: Where runs are kept.
        reasons: For keys of runs that failed or were not started, why.
        fingerprint: Of the data; 16 digits of it are shown.

    Returns:
        Values by the names of `COLUMNS`, None where there is none. `status` is "finished",
        "failed", "missing" (not run yet) or "not run" (a point that cannot be).
    """
    of_point: dict[int, list[Run]] = {}
    for run in runs:
        of_point.setdefault(id(run.point), []).append(run)
    rows = []
    for point in points:
        described = _describe(point, fingerprint)
        if point.options is None:
            rows.append(_row({**described, "status": NOT_RUN, "note": point.note}))
        for run in of_point.get(id(point), ()):
            rows.append(_row({**described, **_of_run(run, store, reasons)}))
    return rows


def timing_rows(runs: Sequence[Run], store: RunStore) -> list[dict[str, Any]]:
    """Times and memory of the finished runs, by the names of `TIMING_COLUMNS`."""
    rows = []
    for run in runs:
        metrics = store.metrics(run.key)
        if metrics is None:
            continue
        rate = metrics["examples_per_second"]
        rows.append(
            {
                **{name: metrics.get(name) for name in TIMING_COLUMNS},
                "run": run.key,
                "experiment": run.point.grid,
                "series": run.point.series.name,
                "value": _text(run.point.value),
                "milliseconds_per_step": rate and 1000 * run.options.batch_size / rate,
            }
        )
    return rows


def write_rows(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Writes rows as CSV, whole or not at all."""
    write_csv(path, columns, [[row[name] for name in columns] for row in rows])


def _describe(point: Point, fingerprint: str) -> dict[str, Any]:
    return {
        "experiment": point.grid,
        "model": point.model,
        "series": point.series.name,
        "embedding": point.series.embedding,
        "varied": point.series.varied,
        "value": _text(point.value),
        "data": fingerprint[:16],
    }


def _text(value: Any) -> str | None:
    """A varied value as the grid writes it."""
    return None if value is None else json.dumps(value)


def _of_run(run: Run, store: RunStore, reasons: Mapping[str, str]) -> dict[str, Any]:
    found = {
        "optimizer": run.options.optimizer,
        "learning_rate": run.options.learning_rate,
        "seed": run.seed,
        "run": run.key,
    }
    metrics = store.metrics(run.key)
    if metrics is not None:
        return {**{name: metrics[name] for name in _METRICS}, **found, "status": FINISHED}
    if run.key in reasons:
        return {**found, "status": FAILED, "note": reasons[run.key]}
    return {**found, "status": MISSING}


def _row(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: values.get(name) for name in COLUMNS}
