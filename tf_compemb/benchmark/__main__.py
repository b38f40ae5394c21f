"""`tf-compemb benchmark SUITE...`: measures, prints, writes."""

from __future__ import annotations

import contextlib
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tf_compemb.benchmark.command_line import add_options as add_options
from tf_compemb.benchmark.command_line import parse
from tf_compemb.missing_packages import explained, reports_missing_packages
from tf_compemb.training.run_directory import replacing, write_json

USER_ERROR = 2
QUICK = "--quick: the tables are tiny and the rounds few, so these numbers mean nothing."


@reports_missing_packages("train")
def main(argv: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The exit status: 0, whatever the numbers are; 1 when a case failed; 2 for a mistake in
        what was given; 130 when interrupted.
    """
    options = parse(argv)
    try:
        return _run(options)
    except OSError as error:  # Such as a full disk.
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def _run(options: Namespace) -> int:
    from tf_compemb.benchmark import machine
    from tf_compemb.benchmark.suites import make_suites
    from tf_compemb.benchmark.worker_process import Workers

    suites = make_suites(options.quick, options.device)
    chosen = [(suites[name], _chosen_groups(suites[name], options.only)) for name in options.suites]
    if not any(groups for _, groups in chosen):
        print(f"error: no group's name holds {options.only!r}.", file=sys.stderr)
        return USER_ERROR
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
    described = machine.describe()
    print(machine.summary(described))
    for line in filter(None, (machine.warning(described), QUICK if options.quick else None)):
        print(line)
    failed = False
    with contextlib.closing(Workers(sys.executable, options.peer_python)) as workers:
        for suite, groups in chosen:
            if groups:
                failed |= _run_suite(suite, groups, workers, options, described)
    return 1 if failed else 0


def _chosen_groups(suite: Any, text: str | None) -> list[Any]:
    return [group for group in suite.groups if text is None or text in group.name]


def _run_suite(
    suite: Any, groups: Sequence[Any], workers: Any, options: Namespace, described: dict[str, Any]
) -> bool:
    """Runs, prints and writes a suite; whether a case failed."""
    from tf_compemb.benchmark.report import kernel_lines, print_suite, shared_reason
    from tf_compemb.benchmark.runner import run_groups
    from tf_compemb.benchmark.summary import group_to_json

    found = run_groups(groups, workers, options.rounds, _announcer(suite.name, len(groups)))
    print_suite(suite, found, print)
    for line in kernel_lines(workers.versions):
        print(line)
    if options.out is not None:
        results = {
            "suite": suite.name,
            "title": suite.title,
            "about": suite.about,
            **({"warning": QUICK} if options.quick else {}),
            "rounds": options.rounds,
            "machine": described,
            "versions": workers.versions,
            "groups": [group_to_json(group) for group in found],
        }
        write_json(options.out / f"{suite.name}.json", results)
        _plot(suite, found, options.out / f"{suite.name}.png", shared_reason(found))
    return any(result.status == "failed" for group in found for result in group.results)


def _plot(suite: Any, found: Sequence[Any], path: Path, not_run: str | None) -> None:
    if not_run:
        return
    try:
        from tf_compemb.benchmark.plots import plot_suite

        with replacing(path) as temporary:
            plot_suite(suite, found, temporary)
    except ImportError as error:
        print(f"no plot: {explained(error)}")


def _announcer(name: str, count: int) -> Callable[[str], None]:
    numbers = iter(range(1, count + 1))

    def announce(group: str) -> None:
        print(f"[{name} {next(numbers)}/{count}] {group}", file=sys.stderr, flush=True)

    return announce


if __name__ == "__main__":
    sys.exit(main())
