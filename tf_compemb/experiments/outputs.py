"""The files of a command: results, summary, counts, figures, report."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tf_compemb.experiments import parameter_counts, results, summary
from tf_compemb.experiments.experiment import Experiment
from tf_compemb.experiments.plots import FigureData, plot
from tf_compemb.experiments.run_store import RunStore
from tf_compemb.training.run_directory import read_csv

Rows = list[dict[str, Any]]


@dataclass
class Outputs:
    """What a command found.

    Attributes:
        results: A row a run.
        timings: A row a finished run.
        summary: A row a point and optimiser.
        comparisons: A row a comparison that a grid names, and model.
        counts: Parameters on the data's and on the public cardinalities.
        figures: For each experiment and model, the files of its figures without their suffix.
    """

    results: Rows = field(default_factory=list)
    timings: Rows = field(default_factory=list)
    summary: Rows = field(default_factory=list)
    comparisons: Rows = field(default_factory=list)
    counts: Rows = field(default_factory=list)
    figures: dict[tuple[str, str], list[Path]] = field(default_factory=dict)


def collect(
    experiments: Sequence[Experiment], store: RunStore, reasons: Mapping[str, str]
) -> Outputs:
    """Reads the finished runs and computes all tables.

    Args:
        experiments: What was run.
        store: Where runs are kept.
        reasons: For keys of runs that failed or were not started, why.
    """
    from tf_compemb.data.criteo_format import KAGGLE_CARDINALITIES

    found = Outputs()
    for one in experiments:
        fingerprint = one.data.fingerprint
        rows = results.result_rows(one.points, one.runs, store, reasons, fingerprint)
        found.results += rows
        found.timings += results.timing_rows(one.runs, store)
        if one.grid.is_trained:
            found.summary += summary.summarize(one.grid, rows)
            found.comparisons += summary.compare(one.grid, rows)
        for name, cardinalities in (
            ("data", one.data.cardinalities),
            ("kaggle", KAGGLE_CARDINALITIES),
        ):
            found.counts += parameter_counts.count_rows(one.grid, one.models, name, cardinalities)
    return found


def write_tables(found: Outputs, out: Path) -> None:
    """Writes all tables as CSV."""
    results.write_rows(out / "results.csv", results.COLUMNS, found.results)
    results.write_rows(out / "timings.csv", results.TIMING_COLUMNS, found.timings)
    results.write_rows(out / "summary.csv", summary.COLUMNS, found.summary)
    results.write_rows(out / "comparisons.csv", summary.COMPARISON_COLUMNS, found.comparisons)
    results.write_rows(out / "parameter_counts.csv", parameter_counts.COLUMNS, found.counts)


def draw_figures(
    experiments: Sequence[Experiment], found: Outputs, store: RunStore, out: Path
) -> None:
    """Draws the figures of each experiment and model that has anything to show.

    That is one figure, and a second of the AUC where bytes are compared and there is one.
    """
    for one in experiments:
        for model in one.models:
            rows = summary.shown_rows(found.summary, one.grid, model)
            sizes = _sizes(one, model, found.counts)
            if not rows and one.grid.is_trained:
                continue
            courses = _courses(one, rows, store) if one.grid.plot == "training" else {}
            figure = FigureData(one.grid, model, rows, courses, sizes, one.data.synthetic)
            stem = out / f"{one.grid.name}-{model}"
            plot(figure, stem)
            found.figures[one.grid.name, model] = [stem]
            defined = [row for row in rows if row["test_auc"] is not None]
            if one.grid.plot == "bytes" and defined:
                auc = stem.with_name(f"{stem.name}-auc")
                plot(replace(figure, rows=defined, measure="test_auc"), auc)
                found.figures[one.grid.name, model].append(auc)


def describe_environment() -> dict[str, Any]:
    """Versions and machine, for the report."""
    from tf_compemb.benchmark import machine
    from tf_compemb.training.environment import versions

    return {"versions": versions(), "machine": machine.summary(machine.describe())}


def _sizes(one: Experiment, model: str, counts: Rows) -> dict[str, list[tuple[str, Any, int]]]:
    captions = {"data": "ids of these data", "kaggle": "ids of the whole of Criteo Kaggle"}
    return {
        f"{caption}: {rows[0]['ids']:,}": [
            (
                row["series"],
                None if row["value"] is None else json.loads(row["value"]),
                row["parameters"],
            )
            for row in rows
        ]
        for name, caption in captions.items()
        if (
            rows := [
                row
                for row in counts
                if (row["cardinalities"], row["experiment"], row["model"])
                == (name, one.grid.name, model)
            ]
        )
    }


def _courses(
    one: Experiment, kept: Sequence[Mapping[str, Any]], store: RunStore
) -> dict[str, list[tuple[list[int], list[float]]]]:
    """Steps and validation losses of each seed of the points that figures show."""
    chosen = {(row["series"], row["model"], row["optimizer"]) for row in kept}
    found: dict[str, list[tuple[list[int], list[float]]]] = {}
    for run in one.runs:
        series = run.point.series.name
        if (series, run.point.model, run.optimizer["optimizer"]) not in chosen:
            continue
        history = store.directory(run.key).history
        if not store.is_finished(run.key) or not os.path.exists(history):
            continue
        rows = [row for row in read_csv(history) if row["validation_loss"]]
        if not rows:  # There is no validation row.
            continue
        course = (
            [int(row["step"]) for row in rows],
            [float(row["validation_loss"]) for row in rows],
        )
        found.setdefault(series, []).append(course)
    return found
