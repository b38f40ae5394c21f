"""`--estimate`: what all runs of a grid would take, from some steps of each of its series."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tf_compemb._child_process import start
from tf_compemb._program import counted
from tf_compemb.benchmark.machine import core_count
from tf_compemb.experiments.experiment import base_options, models_of
from tf_compemb.experiments.grid import Grid
from tf_compemb.experiments.memory import needed_bytes
from tf_compemb.experiments.plan import Point, points_of
from tf_compemb.experiments.progress import duration
from tf_compemb.experiments.scheduler import environment_of_a_run
from tf_compemb.training.environment import prepare_tensorflow, total_bytes
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions


@dataclass(frozen=True)
class DataSize:
    """How much a run reads.

    Attributes:
        path: Of the prepared data set, or None for the public sizes of Criteo Kaggle.
        cardinalities: Ids of each field.
        rows: Of training, validation and test together, and by part.
    """

    path: str | None
    cardinalities: tuple[int, ...]
    rows: dict[str, int]


@dataclass(frozen=True)
class Estimate:
    """Of the runs of one series with one optimiser.

    Attributes:
        grid: Experiment.
        point: The series' largest point, which was measured.
        optimizer: Name.
        runs: How many runs of the series there are with this optimiser.
        step_seconds: Of a training step.
        run_seconds: Of a run.
        peak_bytes: Memory of a run.
        note: Why nothing was measured, or "".
    """

    grid: Grid
    point: Point
    optimizer: str
    runs: int
    step_seconds: float = 0.0
    run_seconds: float = 0.0
    peak_bytes: int = 0
    note: str = ""


def print_estimates(grids: Sequence[Grid], options: argparse.Namespace) -> None:
    """Measures and prints.

    Args:
        grids: Of the command.
        options: Of `command_line.parse`.

    Raises:
        UserError: A method refuses its settings; a measurement failed.
    """
    jobs = options.jobs or core_count()
    console = Console() if sys.stdout.isatty() else Console(width=130)
    sizes = [(grid, _size_of(grid, options)) for grid in grids if grid.is_trained]
    prepare_tensorflow()
    for grid, size in sizes:
        found = estimate(grid, size, options, jobs)
        console.print(_table(grid, size, found))
        for line in _lines(grid, found, jobs):
            console.print(line, highlight=False, soft_wrap=True)


def estimate(grid: Grid, size: DataSize, options: argparse.Namespace, jobs: int) -> list[Estimate]:
    """Measures each series with each optimiser at its largest point, `jobs` at a time."""
    changes = {} if options.epochs is None else {"epochs": options.epochs}
    models = models_of(grid, options.model)
    points = points_of(grid, models, size.cardinalities, TrainingOptions(), changes)
    groups: dict[tuple[str, str], list[Point]] = {}
    for point in points:
        if point.sizes is not None:
            groups.setdefault((point.model, point.series.name), []).append(point)
    tasks = [
        (max(members, key=_training_bytes), optimizer, len(members) * grid.seeds)
        for members in groups.values()
        for optimizer in grid.optimizers
    ]
    with ThreadPoolExecutor(jobs) as pool:
        return list(pool.map(lambda task: _measured(grid, size, jobs, *task), tasks))


def run_seconds(measured: dict[str, float], options: TrainingOptions, size: DataSize) -> float:
    """A run's time: start, steps of all epochs, an evaluation each epoch and one of each part.

    Args:
        measured: Of `step_worker.measure`.
        options: Of the run.
        size: What it reads.
    """
    steps = options.epochs * -(-size.rows["train"] // options.batch_size)
    evaluated = (options.epochs + 1) * size.rows["validation"] + size.rows["test"]
    return (
        measured["start_seconds"]
        + steps * measured["step_seconds"]
        + evaluated * measured["evaluation_seconds_per_row"]
    )


def _training_bytes(point: Point) -> int:
    assert point.sizes is not None
    return point.sizes.training_bytes


def _measured(
    grid: Grid, size: DataSize, jobs: int, point: Point, optimizer: dict[str, Any], runs: int
) -> Estimate:
    assert point.options is not None
    options = point.options.replace(**optimizer)
    name = optimizer["optimizer"]
    needed, total = needed_bytes(options, point.sizes), total_bytes()
    if total is not None and needed > total:
        note = f"needs about {needed / 1e9:.1f} GB of memory, here are {total / 1e9:.1f} GB"
        return Estimate(grid, point, name, runs, note=note)
    asked = {
        "options": options.to_json(),
        "cardinalities": size.cardinalities,
        "data": size.path,
    }
    measured = _answer_of_worker(asked, environment_of_a_run(jobs), f"{point.name} with {name}")
    seconds = run_seconds(measured, options, size) + _validations(grid, size, measured)
    return Estimate(
        *(grid, point, name, runs, measured["step_seconds"], seconds),
        peak_bytes=max(needed, measured["peak_rss_bytes"]),
    )


def _answer_of_worker(
    asked: dict[str, Any], environment: dict[str, str], what: str
) -> dict[str, Any]:
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    environment = {**environment, **os.environ}
    worker = start("tf_compemb.experiments.step_worker", [], text=True, env=environment, **pipes)
    with worker:
        found, errors = worker.communicate(json.dumps(asked))
    if worker.returncode:
        last = (errors.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"{what} could not be measured: {last}")
    return json.loads(found.strip().splitlines()[-1])


def _validations(grid: Grid, size: DataSize, measured: dict[str, float]) -> float:
    """Seconds of the validations within an epoch."""
    more = grid.validations_per_epoch - 1
    return more * size.rows["validation"] * measured["evaluation_seconds_per_row"]


def _size_of(grid: Grid, options: argparse.Namespace) -> DataSize:
    if options.data or options.rows is not None:
        from tf_compemb.training.data_source import open_data

        data = open_data(base_options(options, grid))
        rows = {split: data.split_size(split) for split in data.splits}
        return DataSize(str(data.path), data.cardinalities, rows)
    from tf_compemb.data.criteo_format import KAGGLE_CARDINALITIES, KAGGLE_ROWS, split_rows

    rows = {split: stop - start for split, (start, stop) in split_rows(KAGGLE_ROWS).items()}
    return DataSize(None, KAGGLE_CARDINALITIES, rows)


def _table(grid: Grid, size: DataSize, found: Sequence[Estimate]) -> Table:
    which = size.path or "the public sizes of Criteo Kaggle, generated batches"
    title = f"{grid.name}, {sum(size.rows.values()):,} rows, {sum(size.cardinalities):,} ids"
    table = Table(title=f"{title}\n{which}", box=box.SIMPLE_HEAD, pad_edge=False)
    columns = ("model", "largest point of", "optimiser", "ms a step", "a run", "runs", "all runs")
    for i, column in enumerate((*columns, "memory of a run")):
        table.add_column(column, justify="right" if i > 2 else "left", no_wrap=True)
    for one in found:
        name = [one.point.model, one.point.series.name, one.optimizer]
        if one.note:
            table.add_row(*name, "", "", str(one.runs), "", one.note)
            continue
        table.add_row(
            *name,
            f"{1000 * one.step_seconds:.2f}",
            duration(one.run_seconds),
            str(one.runs),
            duration(one.runs * one.run_seconds),
            f"{one.peak_bytes / 1e9:.1f} GB",
        )
    return table


def _lines(grid: Grid, found: Sequence[Estimate], jobs: int) -> list[str]:
    measured = [one for one in found if not one.note]
    if not measured:
        return [f"{grid.name}: nothing fits into this machine's memory."]
    runs = sum(one.runs for one in measured)
    seconds = sum(one.runs * one.run_seconds for one in measured)
    largest = max(one.peak_bytes for one in measured)
    return [
        f"{grid.name}: {counted(runs, 'run')}, {duration(seconds)} of processes, "
        f"{duration(seconds / jobs)} with {jobs} at a time; the largest run takes "
        f"{largest / 1e9:.1f} GB of memory. Preparing the data and waiting for the disk come on "
        "top."
    ]
