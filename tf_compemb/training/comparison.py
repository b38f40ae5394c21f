"""Several methods or seeds in one call: one run each, in its own process, and one table."""

from __future__ import annotations

import re
import signal
import statistics
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from tf_compemb._child_process import start
from tf_compemb.training.command_options import arguments, single_method
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.run_directory import RunDirectory, write_csv, write_json

# Of a method's runs, the mean and (for several seeds) the standard deviation of each is given.
AVERAGED = (
    "test_loss",
    "test_auc",
    "test_accuracy",
    "validation_loss",
    "validation_auc",
    "validation_accuracy",
    "examples_per_second",
    "peak_rss_bytes",
)
# The same in every run of a method.
SHARED = (
    "parameters",
    "embedding_parameters",
    "embedding_bytes",
    "optimizer_bytes",
    "train_rows",
    "synthetic",
)


@dataclass(frozen=True)
class ComparedRun:
    """One of the runs that are compared.

    Attributes:
        method: As given in `--embedding`, such as `qr:operation=add`.
        options: Of this run alone; `out` is its directory.
    """

    method: str
    options: TrainingOptions


def is_comparison(options: TrainingOptions) -> bool:
    """Whether the options ask for more than one run."""
    return len(options.embedding) > 1 or options.seeds > 1


def plan(options: TrainingOptions) -> list[ComparedRun]:
    """One run for each method and seed, each with its own directory under `options.out`.

    Raises:
        UserError: A method's own options cannot be read.
    """
    runs = []
    for method in options.embedding:
        single = single_method(options, method)
        for seed in range(options.seed, options.seed + options.seeds):
            out = Path(options.out or "") / re.sub(r"[^\w.=-]+", "-", method)
            if options.seeds > 1:
                out = out / f"seed-{seed}"
            runs.append(ComparedRun(method, single.replace(seed=seed, seeds=1, out=str(out))))
    return runs


def run_one(run: ComparedRun) -> int:
    """Trains one run in a process of its own, unless it is finished already.

    A process each keeps the peak memory of a run its own. SIGTERM is passed on; Ctrl-C reaches the
    child from the terminal by itself, and either way the child's checkpoint is waited for.

    Returns:
        The child's exit status.
    """
    directory = RunDirectory(run.options.out or "")
    if directory.metrics.exists():
        return 0
    options = run.options.replace(resume=directory.config.exists())
    if options.resume:
        told = ["--resume", "--out", str(options.out), *(["--json"] if options.json else [])]
    else:
        told = arguments(options)
    output = subprocess.DEVNULL if options.json else None
    child = start("tf_compemb.train", told, stdout=output)

    def pass_on(number: int, frame: FrameType | None) -> None:
        del frame
        if number == signal.SIGTERM:
            child.terminate()

    before = {n: signal.signal(n, pass_on) for n in (signal.SIGINT, signal.SIGTERM)}
    try:
        status = child.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return status if status >= 0 else 128 - status


def collect(runs: Sequence[ComparedRun]) -> list[dict[str, Any]]:
    """One row for each method, from the metrics of its finished runs.

    Returns:
        Rows with `method`, `runs`, the keys of `SHARED`, and for each key of `AVERAGED` the mean
        under its own name and, for several runs, the sample's standard deviation under `KEY_std`.
    """
    rows = []
    for method in dict.fromkeys(run.method for run in runs):
        metrics = [
            RunDirectory(run.options.out or "").read_metrics()
            for run in runs
            if run.method == method
        ]
        row: dict[str, Any] = {"method": method, "runs": len(metrics)}
        row.update({key: metrics[0][key] for key in SHARED})
        for key in AVERAGED:
            values = [m[key] for m in metrics if m[key] is not None]
            row[key] = statistics.fmean(values) if values else None
            if len(values) > 1:
                row[f"{key}_std"] = statistics.stdev(values)
        rows.append(row)
    return rows


def write_comparison(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Writes `comparison.json`, `.csv` and `.png`."""
    from tf_compemb.training.report import plot_comparison

    write_json(out / "comparison.json", list(rows))
    columns = list(dict.fromkeys(key for row in rows for key in row))
    write_csv(out / "comparison.csv", columns, [[row.get(c) for c in columns] for row in rows])
    plot_comparison(rows, out / "comparison.png")
