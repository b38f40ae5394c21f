"""`summary.csv`: what the seeds of a point give together, and beside the baselines."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tf_compemb.experiments.grid import BUDGET, Comparison, Grid
from tf_compemb.experiments.paired import Difference, paired_difference
from tf_compemb.experiments.results import FINISHED

Row = Mapping[str, Any]

_POINT = ("experiment", "model", "series", "embedding", "varied", "value")
_SIZES = ("parameters", "embedding_parameters", "embedding_bytes", "optimizer_bytes")
_AVERAGED = ("test_loss", "test_auc", "test_accuracy", "validation_loss")
BASELINES = ("hash", "full", "frequency_threshold")
_DIFFERENCE = ("", "_half_width", "_verdict")
COLUMNS = (
    *(*_POINT, "optimizer", "kept", "seeds"),
    *(f"{name}{part}" for name in _AVERAGED for part in ("", "_sd")),
    *(f"loss_minus_{name}{part}" for name in BASELINES for part in _DIFFERENCE),
    *_SIZES,
    "note",
)
COMPARISON_COLUMNS = (
    *("experiment", "model", "title", "this", "with"),
    *("difference", "half_width", "verdict", "pairs", "this_bytes", "with_bytes"),
)


def summarize(grid: Grid, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row for each point and optimiser, and one for each point that could not be trained.

    Args:
        grid: The experiment.
        rows: Of `results.result_rows`.

    Returns:
        Values by the names of `COLUMNS`. `kept` is 1 for the optimiser whose mean validation loss
        is the lowest of the point's, and 0 for others. `loss_minus_hash` and its like are paired
        differences of the test loss to the baseline's point of the same value, or to its only one,
        with the optimiser that was kept for it.
    """
    rows = list(rows)
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((*_key(row), row["optimizer"]), []).append(row)
    kept = _kept(groups)
    found = []
    for (*key, optimizer), members in groups.items():
        done = [row for row in members if row["status"] == FINISHED]
        row = {name: members[0][name] for name in (*_POINT, "optimizer")}
        row["kept"] = int(kept.get(tuple(key)) == optimizer) if done else 0
        row["seeds"] = len(done)
        row["note"] = next((m["note"] for m in members if m["note"]), None)
        if done:
            row.update(_averages(done))
            row.update({name: done[0][name] for name in _SIZES})
        for name in compared_baselines(grid):
            row.update(_to_baseline(name, members[0], done, groups, kept))
        found.append({name: row.get(name) for name in COLUMNS})
    return found


def compare(grid: Grid, rows: Iterable[Row]) -> list[dict[str, Any]]:
    """One row for each of the grid's comparisons and each model, by `COMPARISON_COLUMNS`."""
    groups: dict[tuple, list[Row]] = {}
    for row in rows:
        groups.setdefault((*_key(row), row["optimizer"]), []).append(row)
    kept = _kept(groups)
    return [
        {"experiment": grid.name, "model": model, **_compared(comparison, model, groups, kept)}
        for model in dict.fromkeys(key[0] for key in groups)
        for comparison in grid.comparisons
    ]


def compared_baselines(grid: Grid) -> tuple[str, ...]:
    """The baselines of a grid, in the order of `BASELINES`."""
    return tuple(name for name in BASELINES if name in grid.baselines)


def kept_rows(summary: Iterable[Row], model: str) -> list[Row]:
    """The rows of a model, one a point."""
    return [row for row in summary if row["model"] == model and row["kept"]]


def shown_rows(summary: Iterable[Row], grid: Grid, model: str) -> list[Row]:
    """The rows of a grid and model that figures and tables show.

    Points that differ by their byte budget come last, those of one budget by their test loss.
    """
    rows = [row for row in kept_rows(summary, model) if row["experiment"] == grid.name]
    return sorted(rows, key=_rank)


def _rank(row: Row) -> tuple[float, float]:
    if row["varied"] != BUDGET:
        return 0.0, 0.0
    return json.loads(row["value"]), row["test_loss"]


def losses(rows: Iterable[Row]) -> dict[int, float]:
    """Test losses of finished runs, by seed."""
    return {row["seed"]: row["test_loss"] for row in rows if row["status"] == FINISHED}


def _key(row: Row) -> tuple[str, str, str | None]:
    return row["model"], row["series"], row["value"]


def _kept(groups: Mapping[tuple, Sequence[Row]]) -> dict[tuple, str]:
    """For each point, the optimiser with the most finished seeds and the lowest validation loss.

    Without a validation row there is no loss, and the grid's first optimiser is kept.
    """
    best: dict[tuple, tuple] = {}
    for (*key, optimizer), members in groups.items():
        done = [row for row in members if row["status"] == FINISHED]
        if done:
            found = [row["validation_loss"] for row in done if row["validation_loss"] is not None]
            rank = (-len(done), statistics.fmean(found) if found else math.inf)
            if tuple(key) not in best or rank < best[tuple(key)][0]:
                best[tuple(key)] = (rank, optimizer)
    return {key: optimizer for key, (_, optimizer) in best.items()}


def _averages(done: Sequence[Row]) -> dict[str, float]:
    found = {}
    for name in _AVERAGED:
        values = [row[name] for row in done if row[name] is not None]
        if values:
            found[name] = statistics.fmean(values)
        if len(values) > 1:
            found[f"{name}_sd"] = statistics.stdev(values)
    return found


def _to_baseline(
    name: str,
    row: Row,
    done: Sequence[Row],
    groups: Mapping[tuple, Sequence[Row]],
    kept: Mapping[tuple, str],
) -> dict[str, Any]:
    if row["series"] == name:
        return {}
    points = [key for key in kept if key[:2] == (row["model"], name)]
    key = points[0] if len(points) == 1 else (row["model"], name, row["value"])
    # Four collisions are not a fourth of the bytes.
    if key not in kept or (len(points) > 1 and _varied(groups, key) != row["varied"]):
        return {}
    difference = paired_difference(losses(done), losses(groups[(*key, kept[key])]))
    if difference is None:
        return {}
    shown = difference.mean, difference.half_width, difference.verdict
    return {
        f"loss_minus_{name}{part}": value for part, value in zip(_DIFFERENCE, shown, strict=True)
    }


def _varied(groups: Mapping[tuple, Sequence[Row]], key: tuple) -> str | None:
    return next(members[0]["varied"] for group, members in groups.items() if group[:-1] == key)


def _compared(
    comparison: Comparison,
    model: str,
    groups: Mapping[tuple, Sequence[Row]],
    kept: Mapping[tuple, str],
) -> dict[str, Any]:
    sides = []
    for series, value in (comparison.this, comparison.other):
        key = (model, series, None if value is None else json.dumps(value))
        sides.append(groups[(*key, kept[key])] if key in kept else [])
    difference = paired_difference(losses(sides[0]), losses(sides[1]))
    return {
        "title": comparison.title,
        "this": _name(comparison.this),
        "with": _name(comparison.other),
        **_difference_columns(difference),
        **{
            f"{side}_bytes": rows[0]["embedding_bytes"] if rows else None
            for side, rows in zip(("this", "with"), sides, strict=True)
        },
    }


def _difference_columns(difference: Difference | None) -> dict[str, Any]:
    if difference is None:
        return dict.fromkeys(("difference", "half_width", "verdict", "pairs"))
    return {
        "difference": difference.mean,
        "half_width": difference.half_width,
        "verdict": difference.verdict,
        "pairs": difference.pairs,
    }


def _name(point: tuple[str, Any]) -> str:
    series, value = point
    return series if value is None else f"{series} {json.dumps(value)}"
