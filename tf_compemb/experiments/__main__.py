"""`tf-compemb experiments NAME...`: trains a grid's runs, writes tables and a report."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tf_compemb._program import command_of
from tf_compemb.experiments.command_line import add_options as add_options
from tf_compemb.experiments.command_line import parse
from tf_compemb.missing_packages import reports_missing_packages
from tf_compemb.training.errors import UserError

if TYPE_CHECKING:
    from tf_compemb.experiments.experiment import Experiment
    from tf_compemb.experiments.plan import Run
    from tf_compemb.experiments.run_store import RunStore

USER_ERROR = 2
SOME_FAILED = 1


@reports_missing_packages("train")
def main(argv: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The exit status: 0; 1 when a run failed, which does not stop the others; 2 for a mistake in
        what was given; 128 + n after signal n.
    """
    options = parse(argv)
    try:
        return _run(options, command_of("experiments", argv))
    except (UserError, OSError) as error:  # OSError such as a full disk.
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:  # Before the runs, or after them; they take it as a signal.
        print("interrupted; the same command goes on from here", file=sys.stderr)
        return 128 + signal.SIGINT


def _run(options: argparse.Namespace, command: str) -> int:
    from tf_compemb._signatures import method_arguments
    from tf_compemb.experiments.experiment import check_grid, grids_of, open_data_of
    from tf_compemb.training.environment import check_packages, prepare_tensorflow
    from tf_compemb.training.run_directory import check_writable

    grids = grids_of(options, sorted(method_arguments()))
    for grid in grids:
        check_grid(grid, options.model)
    check_packages()
    if options.estimate:
        from tf_compemb.experiments.estimate import print_estimates

        print_estimates(grids, options)
        return 0
    check_writable(options.out)
    data = open_data_of(grids, options)
    prepare_tensorflow()
    experiments = _plan(grids, data, options)
    return _train_and_report(experiments, options, command)


def _plan(
    grids: Sequence[Any], data: Sequence[Any], options: argparse.Namespace
) -> list[Experiment]:
    from tf_compemb._program import counted
    from tf_compemb.experiments.experiment import prepare_experiment
    from tf_compemb.experiments.grid import BUDGET
    from tf_compemb.training.environment import versions

    found = []
    for grid, own in zip(grids, data, strict=True):
        if any(series.varied == BUDGET for series in grid.series):
            print(f"{grid.name}: dividing budgets among the fields, a minute or two", flush=True)
        one = prepare_experiment(grid, options, own, versions())
        counts = counted(len(one.points), "point"), counted(len(one.runs), "run")
        print(f"{grid.name}: {', '.join(counts)}", flush=True)
        found.append(one)
    return found


def _train_and_report(
    experiments: Sequence[Experiment], options: argparse.Namespace, command: str
) -> int:
    from tf_compemb.experiments import outputs
    from tf_compemb.experiments.console import print_results
    from tf_compemb.experiments.report import write_report
    from tf_compemb.experiments.run_store import RunStore

    store = RunStore(options.runs or options.out / "runs")
    options.out.mkdir(parents=True, exist_ok=True)
    runs = [run for one in experiments for run in one.runs]
    status, reasons = _train(runs, store, options.jobs)
    found = outputs.collect(experiments, store, reasons)
    outputs.write_tables(found, options.out)
    if status:
        print(
            "stopped; the same command goes on where the runs were. "
            f"{options.out / 'results.csv'} has those that are finished.",
            file=sys.stderr,
        )
        return status
    outputs.draw_figures(experiments, found, store, options.out)
    environment = outputs.describe_environment()
    write_report(options.out / "report.html", experiments, found, environment, command)
    print_results(experiments, found, options.out)
    return SOME_FAILED if reasons else 0


def _train(runs: Sequence[Run], store: RunStore, jobs: int | None) -> tuple[int, dict[str, str]]:
    """Does the runs; a signal's status or 0, and why runs failed, by their keys."""
    from tf_compemb.benchmark.machine import core_count
    from tf_compemb.experiments.memory import why_too_large
    from tf_compemb.experiments.progress import GridProgress
    from tf_compemb.experiments.scheduler import Scheduler

    distinct = {run.key: run for run in runs}
    reasons = {
        key: reason
        for key, run in distinct.items()
        if not store.is_finished(key) and (reason := why_too_large(run))
    }
    started = [run for run in runs if run.key not in reasons]
    if not started:
        return 0, reasons
    with GridProgress(len(distinct) - len(reasons), lambda run: _outcome(run, store)) as progress:
        scheduler = Scheduler(store, jobs or core_count(), progress.finished)
        status = scheduler.run(started)
    return status, {**reasons, **scheduler.failures}


def _outcome(run: Run, store: RunStore) -> str:
    metrics = store.metrics(run.key)
    name = f"{run.point.grid}, {run.point.model} {run.point.name}, "
    name += f"{run.optimizer['optimizer']}, seed {run.seed}"
    return f"{name}: " + (f"test loss {metrics['test_loss']:.4f}" if metrics else "FAILED")


if __name__ == "__main__":
    sys.exit(main())
