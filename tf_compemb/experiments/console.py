"""What a command prints at its end."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from tf_compemb.experiments.experiment import Experiment
from tf_compemb.experiments.outputs import Outputs
from tf_compemb.experiments.paper import difference_text
from tf_compemb.experiments.plan import value_text
from tf_compemb.experiments.results import FINISHED
from tf_compemb.experiments.summary import compared_baselines, shown_rows
from tf_compemb.training.report import megabytes

_COLUMNS = ("method", "optimiser", "served", "test loss")


def print_results(experiments: Sequence[Experiment], found: Outputs, out: Path) -> None:
    """Prints a table for each experiment and model, and where the files are."""
    console = Console()
    for one in experiments:
        for model in one.models:
            if rows := shown_rows(found.summary, one.grid, model):
                print_whole(console, _table(one, model, rows))
    for row in found.comparisons:
        if row["difference"] is not None:
            width = "" if row["half_width"] is None else f" ± {row['half_width']:.4f}"
            console.print(
                f"{row['model'].upper()}: {row['this']} against {row['with']}, test loss "
                f"{row['difference']:+.4f}{width}: {row['verdict']}",
                highlight=False,
                soft_wrap=True,
            )
    for line in _unfinished(found.results):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    console.print(f"report: {out / 'report.html'}", highlight=False, soft_wrap=True)


def print_whole(console: Console, table: Table) -> None:
    """Prints a table at its own width, however narrow the terminal: no number is cut short."""
    wanted = Measurement.get(console, console.options.update(width=1000), table).maximum
    console.width = max(console.width, wanted)
    console.print(table)


def _table(one: Experiment, model: str, rows: Sequence[Mapping[str, Any]]) -> Table:
    seeds = max(row["seeds"] for row in rows)
    title = f"{one.grid.name}, {model.upper()}, {seeds} seed{'s' if seeds > 1 else ''}"
    title += " (synthetic data)" if one.data.synthetic else ""
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False)
    baselines = compared_baselines(one.grid)
    columns = [*_COLUMNS, *(f"minus {name}".replace("_", " ") for name in baselines)]
    for i, column in enumerate(columns):
        table.add_column(column, justify="right" if i > 1 else "left", no_wrap=True)
    for row in rows:
        spread = "" if row["test_loss_sd"] is None else f" ± {row['test_loss_sd']:.4f}"
        table.add_row(
            _name(row),
            row["optimizer"],
            megabytes(row["embedding_bytes"]),
            f"{row['test_loss']:.4f}{spread}",
            *(difference_text(row, n).replace("within the noise", "noise") for n in baselines),
        )
    return table


def _name(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return row["series"]
    return f"{row['series']} {value_text(row['varied'], json.loads(row['value']))}"


def _unfinished(rows: Iterable[Mapping[str, Any]]) -> list[str]:
    """A line for each point that was not measured, for all models of which the same is true."""
    models: dict[tuple[str, str, str, str], list[str]] = {}
    for row in rows:
        if row["status"] != FINISHED:
            key = (row["status"], row["experiment"], _name(row), row["note"] or "")
            models.setdefault(key, []).append(row["model"].upper())
    return [
        f"{status}: {experiment}, {name} ({', '.join(dict.fromkeys(found))})"
        + (f": {note}" if note else "")
        for (status, experiment, name, note), found in models.items()
    ]
