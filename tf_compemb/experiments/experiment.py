"""Experiments of one command: their grids, data, points and runs."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_compemb.experiments.grid import GRIDS, Grid, Series, read_grid, single_value
from tf_compemb.experiments.plan import (
    DATA_OPTIONS,
    Point,
    Run,
    options_of,
    points_of,
    runs_of,
)
from tf_compemb.training.build import method_options
from tf_compemb.training.data_source import open_data
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions


@dataclass(frozen=True)
class Experiment:
    """A grid on data.

    Attributes:
        grid: What is compared.
        data: The `PreparedDataset`.
        points: Of the grid, for the models that were asked for.
        runs: Of the points.
    """

    grid: Grid
    data: Any
    points: tuple[Point, ...]
    runs: tuple[Run, ...]

    @property
    def models(self) -> list[str]:
        """Networks, in the order of the grid."""
        return list(dict.fromkeys(point.model for point in self.points))


def grids_of(options: argparse.Namespace, methods: list[str]) -> list[Grid]:
    """The grids that a command names, with what it changes of them.

    Args:
        options: Of `command_line.parse`.
        methods: Names of all methods.

    Raises:
        UserError: A grid is faulty, or has not what the command asks for.
    """
    paths = [GRIDS / f"{name}.json" for name in options.names] + options.grid
    grids = [_changed(read_grid(path, methods), options) for path in paths]
    names = [grid.name for grid in grids]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(f"Two grids are called {twice}: rename one of the files.")
    return grids


def base_options(options: argparse.Namespace, grid: Grid) -> TrainingOptions:
    """Which data a grid's runs read."""
    base = TrainingOptions(data=tuple(options.data or ()), cache=options.cache)
    if options.rows is not None:
        base = base.replace(rows=options.rows)
    of_grid = {name: value for name, value in grid.settings.items() if name in DATA_OPTIONS}
    return base.replace(**of_grid)


def check_grid(grid: Grid, model: str) -> None:
    """Whether a grid has the model of `--model`, and its methods and their settings are known.

    Raises:
        UserError: They are not.
    """
    models_of(grid, model)
    for series in grid.series:
        for value in series.values:
            method_options(options_of(grid, series, value, TrainingOptions(), {}))


def open_data_of(grids: Sequence[Grid], options: argparse.Namespace) -> list[Any]:
    """The `PreparedDataset` of each grid, prepared first where it has to be.

    Raises:
        UserError: The data cannot be read.
    """
    return [open_data(base_options(options, grid)) for grid in grids]


def prepare_experiment(
    grid: Grid, options: argparse.Namespace, data: Any, versions: Mapping[str, str]
) -> Experiment:
    """Plans all runs of a grid.

    Args:
        grid: Of `grids_of`.
        options: Of `command_line.parse`.
        data: The `PreparedDataset`.
        versions: Of packages.

    Raises:
        UserError: A method refuses its settings.
    """
    changes = {} if options.epochs is None else {"epochs": options.epochs}
    # Every run reads what has been prepared, by its path.
    base = TrainingOptions(data=(str(data.path.resolve()),))
    points = points_of(grid, models_of(grid, options.model), data.cardinalities, base, changes)
    runs = runs_of(grid, points, grid.seeds, data, versions) if grid.is_trained else []
    return Experiment(grid, data, tuple(points), tuple(runs))


def models_of(grid: Grid, model: str) -> list[str]:
    """The grid's models that `--model` asks for.

    Raises:
        UserError: None.
    """
    found = [name for name in grid.models if model in (name, "both")]
    if not found:
        raise UserError(
            f"The grid {grid.name} has no model {model}; it has {', '.join(grid.models)}."
        )
    return found


def _changed(grid: Grid, options: argparse.Namespace) -> Grid:
    series, optimizers = grid.series, grid.optimizers
    if options.only:
        names = [s.name for s in series]
        _check(grid, "--only", options.only, names)
        series = tuple(s for s in series if s.name in options.only)
    if options.values:
        there = {_value_name(v): None for s in series for v in s.values if s.varied}
        _check(grid, "--values", options.values, list(there))
        asked = [dataclasses.replace(s, values=_those(s, options.values)) for s in series]
        series = tuple(s for s in asked if s.values)
    if options.optimizer:
        names = [o["optimizer"] for o in optimizers]
        _check(grid, "--optimizer", options.optimizer, names)
        optimizers = tuple(o for o in optimizers if o["optimizer"] in options.optimizer)
    kept = {s.name for s in series}
    changed = dataclasses.replace(
        grid,
        series=series,
        optimizers=optimizers,
        seeds=options.seeds or grid.seeds,
        baselines=tuple(name for name in grid.baselines if name in kept),
    )
    pairs = [c for c in grid.comparisons if all(changed.has_point(*p) for p in (c.this, c.other))]
    return dataclasses.replace(changed, comparisons=tuple(pairs))


def _those(series: Series, names: Sequence[str]) -> tuple[Any, ...]:
    if series.varied is None:
        return series.values
    return tuple(value for value in series.values if _value_name(value) in names)


def _value_name(value: Any) -> str:
    """A value as `--values` has it: without commas, brackets and a float's zero.

    >>> _value_name(60.0), _value_name([16]), _value_name("large")
    ('60', '16', 'large')
    """
    value = single_value(value)
    return f"{value:g}" if isinstance(value, (int, float)) else str(value)


def _check(grid: Grid, option: str, asked: Sequence[str], there: Sequence[str]) -> None:
    missing = [name for name in asked if name not in there]
    if missing:
        has = f"has {', '.join(there)} and no other" if there else "has none"
        raise UserError(f"{option} {missing[0]}: the grid {grid.name} {has}.")
