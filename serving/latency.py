"""Latency and throughput of served models: the same calls to each in turn, on one connection."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_compemb.serving.client import Client

WARM_UP_CALLS = 10


@dataclass(frozen=True)
class Case:
    """One request to one model over one protocol.

    Attributes:
        model: The model's name in the comparison.
        protocol: `"grpc"` or `"rest"`.
        batch: Rows of the request.
        client: Connection to the model's server.
        request: The call, ready to be sent: building it and reading the answer's numbers are the
            client program's work and are not timed.
    """

    model: str
    protocol: str
    batch: int
    client: Client
    request: Any


@dataclass(frozen=True)
class Latency:
    """Calls of one case, one row a repeat.

    Attributes:
        case: What was called.
        seconds: float64 `[repeats, calls]`, from sending a request to having the whole answer.
    """

    case: Case
    seconds: np.ndarray

    def percentile_ms(self, percent: float) -> np.ndarray:
        """Milliseconds that `percent` percent of the calls did not exceed, float64 `[repeats]`."""
        return 1e3 * np.percentile(self.seconds, percent, axis=1)

    def rows_per_second(self) -> np.ndarray:
        """Rows answered in a second, one call after another, float64 `[repeats]`."""
        return self.case.batch * self.seconds.shape[1] / self.seconds.sum(axis=1)


def measure_latency(
    cases: Sequence[Case],
    *,
    repeats: int,
    calls: int,
    report: Callable[[Case], None],
    clock: Callable[[], float] = time.perf_counter,
) -> list[Latency]:
    """Calls every case `calls` times, and all that `repeats` times.

    Models take turns within each repeat, so that what else the machine does strikes all alike.

    Args:
        cases: What to call, in this order; cases to be compared stand next to each other.
        repeats: Rounds over all cases.
        calls: Calls of a case in a round, one after another, after 10 that are not counted.
        report: Told about each case of each round before it runs.
        clock: Seconds.

    Raises:
        ServingError: A server refused, or cannot be reached.
    """
    seconds = np.zeros((len(cases), repeats, calls))
    for repeat in range(repeats):
        for index, case in enumerate(cases):
            report(case)
            for _ in range(WARM_UP_CALLS):
                case.client.send(case.request)
            for call in range(calls):
                start = clock()
                case.client.send(case.request)
                seconds[index, repeat, call] = clock() - start
    return [Latency(case, seconds[index]) for index, case in enumerate(cases)]
