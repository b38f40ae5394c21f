"""From a grid and data to training runs: their options, sizes and cache keys."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tf_compemb.experiments.budgets import BudgetError, overrides_within
from tf_compemb.experiments.grid import BUDGET, Grid, Series, single_value
from tf_compemb.training.command_options import as_given
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions

# Options that a grid may set; any other setting is one of the method's own.
GRID_OPTIONS = frozenset(
    (
        *("operation", "collisions", "modulus", "partitions", "threshold", "dim", "epochs"),
        *("batch_size", "warmup_steps", "precision", "encoder", "min_count", "hash_buckets"),
        "network",
    )
)
DATA_OPTIONS = ("data", "rows", "cache", "encoder", "min_count", "hash_buckets", "bad_lines")
# What changes neither a loss nor a size; of the data, the fingerprint counts.
_WITHOUT_EFFECT = (*DATA_OPTIONS, "checkpoint_every", "steps_per_execution", "seeds")
# Versions that decide a result.
_PACKAGES = ("tf_compemb", "tensorflow", "tf_keras", "tensorflow-recommenders", "numpy")
_LEAST_CHECKPOINT_STEPS = 2000
_CHECKPOINTS_OF_A_RUN = 10


@dataclass(frozen=True)
class Sizes:
    """Parameters and bytes of a model with its embeddings.

    Attributes:
        parameters: Of the whole model.
        embedding_parameters: Of the embeddings.
        embedding_bytes: Served bytes of the embeddings.
        training_bytes: Bytes of the embeddings' variables in training.
        full_bytes: Bytes of full tables instead.
    """

    parameters: int
    embedding_parameters: int
    embedding_bytes: int
    training_bytes: int
    full_bytes: int


@dataclass(frozen=True)
class Point:
    """A point of a figure.

    Attributes:
        grid: Name of the experiment.
        model: Network.
        series: Its series.
        value: Of the series' varied setting, or None.
        options: Of its runs, but the optimiser and the seed; None where it cannot be trained.
        sizes: Of its model, or None.
        note: Why it cannot be trained, or "".
    """

    grid: str
    model: str
    series: Series
    value: Any
    options: TrainingOptions | None
    sizes: Sizes | None
    note: str = ""

    @property
    def name(self) -> str:
        """For people: the series and the value."""
        if self.series.varied is None:
            return self.series.name
        return f"{self.series.name} {value_text(self.series.varied, self.value)}"


@dataclass(frozen=True)
class Run:
    """A training run of a point.

    Attributes:
        point: The point.
        optimizer: Settings of the optimiser, as in the grid.
        seed: Of initial weights and order of rows.
        options: Everything that decides the run.
        key: Name of its directory: a hash of options, data and versions.
    """

    point: Point
    optimizer: Mapping[str, Any]
    seed: int
    options: TrainingOptions
    key: str


def value_text(varied: str, value: Any) -> str:
    """A point's value for people.

    >>> value_text("collisions", 4), value_text("budget", 60), value_text("hidden_units", [16])
    ('collisions=4', 'budget=1/60', 'hidden_units=16')
    """
    if varied == BUDGET:
        return f"{varied}=1/{value:g}"
    return f"{varied}={single_value(value)}"


def points_of(
    grid: Grid,
    models: Sequence[str],
    cardinalities: Sequence[int],
    base: TrainingOptions,
    changes: Mapping[str, Any],
) -> list[Point]:
    """The points of a grid, in its order, for each model.

    Args:
        grid: The grid.
        models: Networks; those that the grid does not have are left out.
        cardinalities: Ids of each field.
        base: Options of the data.
        changes: Settings that replace those of the grid, such as `{"epochs": 3}`.

    Raises:
        UserError: A method refuses its settings.
    """
    found: list[Point] = []
    chosen = [(series, value) for series in grid.series for value in series.values]
    for series, value in chosen:
        try:
            options = options_of(grid, series, value, base, changes)
            if series.varied == BUDGET:
                divided = overrides_within(options, cardinalities, value, grid.full_tables_share)
                options = options.replace(overrides=divided, threshold=None)
        except BudgetError as error:
            for model in models:
                found.append(Point(grid.name, model, series, value, None, None, str(error)))
            continue
        for model in models:
            of_model = options.replace(model=model)
            sizes = sizes_of(of_model, cardinalities)
            found.append(Point(grid.name, model, series, value, of_model, sizes))
    return [p for model in grid.models for p in found if p.model == model]


def runs_of(
    grid: Grid, points: Sequence[Point], seeds: int, data: Any, versions: Mapping[str, str]
) -> list[Run]:
    """The runs of a grid's points: for each optimiser, each seed.

    Args:
        grid: The grid.
        points: Of `points_of`.
        seeds: Trials.
        data: The `PreparedDataset`.
        versions: Of packages, as `training.environment.versions` gives them.
    """
    runs = []
    for point in points:
        if point.options is None:
            continue
        for optimizer in grid.optimizers:
            for seed in range(seeds):
                options = point.options.replace(
                    **optimizer, seed=seed, **_cadence(grid, point.options, data)
                ).with_optimizer_defaults()
                key = key_of(options, data.fingerprint, versions)
                runs.append(Run(point, optimizer, seed, options, key))
    return runs


def key_of(options: TrainingOptions, fingerprint: str, versions: Mapping[str, str]) -> str:
    """16 hexadecimal digits, equal for runs that must have equal results.

    Args:
        options: Of the run.
        fingerprint: Of the prepared data.
        versions: Of packages.
    """
    # Without defaults: a run stays the same when the training program gets another option.
    usual = TrainingOptions().to_json()
    decisive = {
        name: value
        for name, value in options.to_json().items()
        if name not in _WITHOUT_EFFECT and value != usual[name]
    }
    packages = {name: versions.get(name) for name in _PACKAGES}
    text = json.dumps([decisive, fingerprint, packages], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def sizes_of(options: TrainingOptions, cardinalities: Sequence[int]) -> Sizes:
    """Sizes by formula; no table is made.

    Raises:
        UserError: The method refuses its options.
    """
    from tf_compemb.training import build

    collection = build.build_collection(options, cardinalities)
    footprint = collection.footprint()
    return Sizes(
        parameters=build.network_parameters(options, collection) + footprint.parameters,
        embedding_parameters=footprint.parameters,
        embedding_bytes=footprint.inference_bytes,
        training_bytes=footprint.training_bytes,
        full_bytes=4 * footprint.full_parameters,
    )


def options_of(
    grid: Grid, series: Series, value: Any, base: TrainingOptions, changes: Mapping[str, Any]
) -> TrainingOptions:
    """Options of a point, without model, optimiser, seed, and what a budget decides."""
    settings = {**grid.settings, **series.settings}
    if series.varied not in (None, BUDGET):
        settings[series.varied] = value
    settings.update(changes)
    shared = {name: v for name, v in settings.items() if name in GRID_OPTIONS}
    own = {name: v for name, v in settings.items() if name not in GRID_OPTIONS}
    options = dataclasses.replace(base, embedding=(series.embedding,), option=own, **shared)
    try:
        return as_given(options)
    except UserError as error:
        raise UserError(f"The grid {grid.name}, series {series.name}: {error}.") from error


def _cadence(grid: Grid, options: TrainingOptions, data: Any) -> dict[str, int]:
    """Steps between checkpoints, and between validations where the grid asks for several."""
    steps = data.steps("train", options.batch_size)
    found = {
        "checkpoint_every": max(_LEAST_CHECKPOINT_STEPS, steps // _CHECKPOINTS_OF_A_RUN),
    }
    if grid.validations_per_epoch > 1:
        found["validate_every"] = max(1, steps // grid.validations_per_epoch)
    return found
