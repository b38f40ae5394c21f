"""One runner for all suites: prepares a group's cases, gives each its turns, collects."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tf_compemb.benchmark.cases import CaseResult, Group
from tf_compemb.benchmark.engines import UnavailableError
from tf_compemb.benchmark.machine import available_bytes
from tf_compemb.benchmark.memory_need import needed_bytes
from tf_compemb.benchmark.other_load import OtherLoad
from tf_compemb.benchmark.units import SECONDS
from tf_compemb.benchmark.worker_process import MissingPackagesError, WorkerError, Workers

# A turn of a fast case is so long, in seconds: enough calls that starting is no part of it.
TURN_SECONDS = 0.1
MOST_CALLS = 50


@dataclass
class GroupResult:
    """A group, and what was measured of each of its cases, in its order.

    Attributes:
        other_share: Share of all cores that other programs took meanwhile, or None if unknown.
    """

    group: Group
    results: list[CaseResult]
    other_share: float | None = None

    def of(self, name: str | None) -> CaseResult | None:
        """The result of a case that was measured, or None."""
        found = (r for r in self.results if r.case.name == name and r.status == "measured")
        return next(found, None)


def run_groups(
    groups: Sequence[Group], workers: Workers, rounds: int, announce: Callable[[str], None]
) -> list[GroupResult]:
    """Measures groups one after the other.

    Args:
        groups: What to measure.
        workers: The engines' processes.
        rounds: Turns of each case.
        announce: Is told the name of each group before it is run.
    """
    found = []
    for group in groups:
        announce(group.name)
        # What an engine does not give back would be missing from the others' tables.
        workers.end_all_but(() if group.fresh else {case.engine for case in group.cases})
        load, before = OtherLoad(), workers.processor_seconds()
        results = _run_group(group, workers, rounds)
        share = load.share(workers.processor_seconds() - before)
        found.append(GroupResult(group, results, share))
        workers.release()
    return found


def _run_group(group: Group, workers: Workers, rounds: int) -> list[CaseResult]:
    results = [CaseResult(case) for case in group.cases]
    if group.fresh and group.once:
        for result in results:
            _prepare(result, workers)
            _take_turn(result, workers, 1, False)
            workers.end(result.case.engine)
        return results
    for result in results:
        _prepare(result, workers)
    if group.once:
        for result in results:
            _take_turn(result, workers, 1, False)
        return results
    calls = {result.case.name: _calls_of_a_turn(result, workers) for result in results}
    for _ in range(rounds):
        for result in results:
            count = calls[result.case.name]
            _take_turn(result, workers, count, first_untimed=count > 1)
    return results


def _prepare(result: CaseResult, workers: Workers) -> None:
    case = result.case
    needed, available = needed_bytes(case), available_bytes()
    if available is not None and needed > available:
        result.status = "skipped"
        result.reason = f"needs {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are free"
        return
    try:
        worker = workers.get(case.engine)
        worker.ask("prepare", name=case.name, task=case.task, settings=dict(case.settings))
    except MissingPackagesError as missing:
        result.status, result.reason = "not installed", str(missing)
    except UnavailableError as reason:
        result.status, result.reason = "skipped", str(reason)
    except WorkerError as error:
        _fail(result, error)


def _calls_of_a_turn(result: CaseResult, workers: Workers) -> int:
    if result.status != "measured":
        return 0
    try:
        seconds = workers.get(result.case.engine).ask("warm_up", name=result.case.name)[SECONDS]
    except WorkerError as error:
        _fail(result, error)
        return 0
    return max(1, min(MOST_CALLS, int(TURN_SECONDS / seconds)))


def _take_turn(result: CaseResult, workers: Workers, calls: int, first_untimed: bool) -> None:
    if result.status != "measured":
        return
    arguments = {"name": result.case.name, "calls": calls, "first_untimed": first_untimed}
    try:
        answer = workers.get(result.case.engine).ask("turn", **arguments)
    except WorkerError as error:
        _fail(result, error)
        return
    result.turns.append(answer["measures"])


def _fail(result: CaseResult, error: WorkerError) -> None:
    result.status, result.reason = "failed", str(error)
