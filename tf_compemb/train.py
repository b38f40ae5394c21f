"""`tf-compemb train`: trains DLRM or DCN on Criteo-format data with any method."""

from __future__ import annotations

import json
import signal
import sys
from typing import Any

from tf_compemb.missing_packages import reports_missing_packages
from tf_compemb.training.command_options import add_options as add_options
from tf_compemb.training.command_options import parse, single_method
from tf_compemb.training.comparison import (
    collect,
    is_comparison,
    plan,
    run_one,
    write_comparison,
)
from tf_compemb.training.errors import UserError
from tf_compemb.training.first_checks import check_evaluation, check_names, check_teacher
from tf_compemb.training.options import OF_ONE_MACHINE, TrainingOptions
from tf_compemb.training.run_directory import RunDirectory, default_out, write_json
from tf_compemb.training.strategy import own_out

USER_ERROR = 2  # Exit status of argparse too.


@reports_missing_packages("train")
def main(argv: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The exit status: 0, 2 for a mistake in what was given, 128 + n after signal n.
    """
    try:
        options, given = parse(argv)
        return _run(options, given)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except OSError as error:  # Such as a full disk, or a file that cannot be read.
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _run(options: TrainingOptions, given: frozenset[str]) -> int:
    if options.dry_run:
        return _dry_run(options)
    if options.evaluate:
        return _evaluate(options)
    out = options.out or default_out(options.model, "-".join(options.embedding))
    out = own_out(out, options.strategy)
    run = RunDirectory(out)
    if options.resume:
        options = _resumed(run, options, given)
    else:
        run.check_new()
        options = options.with_optimizer_defaults()
    options = options.replace(out=out)
    check_names(options)
    check_teacher(options)
    if is_comparison(options):
        return _compare(options, run)
    if ":" in options.embedding[0]:
        options = single_method(options, options.embedding[0])
    return _train(options, run)


def _resumed(run: RunDirectory, options: TrainingOptions, given: frozenset[str]) -> TrainingOptions:
    """The options that a run was started with; others given on the command line must agree."""
    stored = TrainingOptions.from_json(run.read_config()["options"])
    if stored.strategy == "multiworker" and "strategy" not in given:
        raise UserError(f"The run in {run.path} has several workers: add --strategy multiworker.")
    for name in given - {"out", "resume", "profile", "json", "cache", *OF_ONE_MACHINE}:
        if getattr(options, name) != getattr(stored, name):
            raise UserError(
                f"--{name.replace('_', '-')} differs from that of the run in {run.path}, which "
                f"was started with {getattr(stored, name)!r}; leave it out to resume."
            )
    own = {name: getattr(options, name) for name in OF_ONE_MACHINE}
    return stored.replace(resume=True, profile=options.profile, json=options.json, **own)


def _start_tensorflow(options: TrainingOptions) -> None:
    from tf_compemb.training.environment import prepare_tensorflow, set_threads

    prepare_tensorflow()
    set_threads(options.intra_op_threads, options.inter_op_threads)


def _train(options: TrainingOptions, run: RunDirectory) -> int:
    from tf_compemb.training.data_source import data_of_run, open_data
    from tf_compemb.training.environment import check_packages
    from tf_compemb.training.shortage import told_in_one_sentence

    check_packages()
    data = data_of_run(run) if options.resume else open_data(options)
    _start_tensorflow(options)
    from tf_compemb.training.interruption import TrainingInterrupted
    from tf_compemb.training.report import print_metrics, print_profile
    from tf_compemb.training.trainer import train

    try:
        with told_in_one_sentence(run):
            metrics = train(options, run, data)
    except TrainingInterrupted as stopped:
        print(
            f"stopped by {stopped} after a checkpoint; `--resume --out {run.path}` goes on.",
            file=sys.stderr,
        )
        return 128 + stopped.signal_number
    if options.json:
        _print_json(metrics)
    else:
        print_metrics(metrics, run.path)
        if options.profile:
            print_profile(run)
    return 0


def _compare(options: TrainingOptions, run: RunDirectory) -> int:
    from tf_compemb.training.environment import versions

    runs = plan(options)
    if not options.resume:
        run.create()
        write_json(run.config, {"options": options.to_json(), "versions": versions()})
    for number, one in enumerate(runs, start=1):
        if not options.json:
            print(f"[{number}/{len(runs)}] {one.method}, seed {one.options.seed}", flush=True)
        status = run_one(one)
        if status:
            return status
    rows = collect(runs)
    write_comparison(rows, run.path)
    if options.json:
        _print_json(rows)
    else:
        from tf_compemb.training.report import print_comparison

        print_comparison(rows, run.path)
    return 0


def _evaluate(options: TrainingOptions) -> int:
    run, file = RunDirectory(options.out or ""), options.evaluate or ""
    check_evaluation(run, file)
    _start_tensorflow(options)
    from tf_compemb.training.evaluate_run import evaluate_run
    from tf_compemb.training.report import print_evaluation

    metrics = evaluate_run(run, file, options)
    if options.json:
        _print_json(metrics)
    else:
        print_evaluation(metrics)
    return 0


def _dry_run(options: TrainingOptions) -> int:
    from tf_compemb.training.dry_run import dry_run, read_cardinalities
    from tf_compemb.training.environment import prepare_tensorflow

    read_cardinalities(options.cardinalities or "")
    check_names(options)
    prepare_tensorflow()
    models = dry_run(options)
    if options.json:
        _print_json(models[0] if len(models) == 1 else models)
        return 0
    for sizes in models:
        print(f"{sizes['model']}, {sizes['embedding']}\n{sizes['summary']}")
        for name, value in sizes.items():
            if name.endswith(("parameters", "bytes")):
                print(f"{name:<26}{value:>16,}")
    return 0


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2))


if __name__ == "__main__":
    sys.exit(main())
