"""Runs of a grid, several at a time, each in a process of its own.

A process each gives a run's memory back whole, keeps its peak its own, and lets one be killed
without the others.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from types import FrameType

from tf_compemb.benchmark.machine import available_bytes, core_count
from tf_compemb.experiments import training_process
from tf_compemb.experiments.memory import needed_bytes
from tf_compemb.experiments.plan import Run
from tf_compemb.experiments.run_store import RunStore
from tf_compemb.training.command_options import arguments

_PAUSE = 0.2  # Seconds between looks at the processes.
_THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def environment_of_a_run(jobs: int) -> dict[str, str]:
    """Variables that give each of several runs its share of the cores, and of a GPU's memory.

    Results do not depend on the number of threads; the time of all runs does.
    """
    threads = str(max(1, core_count() // jobs))
    return {**dict.fromkeys(_THREADS, threads), "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


@dataclass
class _Active:
    run: Run
    process: BaseProcess
    claim: int
    resumed: bool
    started: float


class Scheduler:
    """Does the runs that are not done yet.

    Args:
        store: Where runs are kept.
        jobs: Processes at a time, as far as their memory fits.
        finished: Is told each run that ends well, and its seconds; those done before take none.
        start_process: As `training_process.start`.

    Attributes:
        failures: For each key of a run that ended badly, why.
    """

    def __init__(
        self,
        store: RunStore,
        jobs: int,
        finished: Callable[[Run, float], None],
        start_process: Callable[..., BaseProcess] = training_process.start,
    ) -> None:
        self.failures: dict[str, str] = {}
        self._store = store
        self._jobs = jobs
        self._finished = finished
        self._start_process = start_process
        self._active: list[_Active] = []
        self._signal: int | None = None

    def run(self, runs: Sequence[Run]) -> int:
        """Works through runs, in their order.

        Returns:
            0, or 128 + n after signal n; processes have then written checkpoints and ended.
        """
        waiting = list({run.key: run for run in runs}.values())
        numbers = (signal.SIGINT, signal.SIGTERM)
        before = {n: signal.signal(n, self._note) for n in numbers}
        try:
            while (waiting or self._active) and self._signal is None:
                self._look_after_processes()
                self._start_some(waiting)
                if self._active or waiting:
                    time.sleep(_PAUSE)
        finally:
            self._stop_processes()
            for number, handler in before.items():
                signal.signal(number, handler)
        return 0 if self._signal is None else 128 + self._signal

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._signal = number

    def _start_some(self, waiting: list[Run]) -> None:
        for run in list(waiting):
            if self._signal is not None:
                return
            if self._store.is_finished(run.key):
                if self._take_finished(run):
                    waiting.remove(run)
            elif len(self._active) < self._jobs and self._has_memory_for(run):
                claim = self._store.claim(run.key)
                if claim is not None:  # Else a process of another program is at it.
                    waiting.remove(run)
                    self._start(run, claim)

    def _take_finished(self, run: Run) -> bool:
        """A run that was done before; what a kill kept from being removed is removed now.

        Returns:
            False while the process that did it has not ended.
        """
        claim = self._store.claim(run.key)
        if claim is None:
            return False
        self._store.finish(run.key)
        os.close(claim)
        self._finished(run, 0.0)
        return True

    def _has_memory_for(self, run: Run) -> bool:
        free = available_bytes()
        if free is None or not self._active:
            return True
        # A process that has only started will still take what it needs.
        young = [a for a in self._active if time.monotonic() - a.started < 30]
        return needed_bytes(run.options, run.point.sizes) < free - sum(
            needed_bytes(a.run.options, a.run.point.sizes) for a in young
        )

    def _start(self, run: Run, claim: int, from_scratch: bool = False) -> None:
        if from_scratch:
            self._store.clear(run.key)
        resumed = self._store.can_resume(run.key)
        out = str(self._store.directory(run.key).path)
        if resumed:
            told = ["--resume", "--out", out]
        else:
            told = arguments(run.options.replace(out=out))
        environment = {**environment_of_a_run(self._jobs), **os.environ}
        # Ctrl-C is for this program, which passes it on once.
        process = self._start_process(
            [*told, "--json"], environment, self._store.log(run.key), claim
        )
        self._active.append(_Active(run, process, claim, resumed, time.monotonic()))

    def _look_after_processes(self) -> None:
        for active in list(self._active):
            status = active.process.exitcode
            if status is not None:
                self._active.remove(active)
                self._after(active, status)

    def _after(self, active: _Active, status: int) -> None:
        run = active.run
        if self._store.is_finished(run.key):
            self._store.finish(run.key)
            os.close(active.claim)
            self._finished(run, time.monotonic() - active.started)
        elif active.resumed and status > 0 and self._signal is None:
            self._start(run, active.claim, from_scratch=True)  # The checkpoint may be damaged.
        else:
            os.close(active.claim)
            if self._signal is None:
                self.failures[run.key] = self._reason(run, status)
                self._finished(run, time.monotonic() - active.started)

    def _reason(self, run: Run, status: int) -> str:
        if status < 0:
            return f"ended by {signal.Signals(-status).name}"
        lines = self._store.log(run.key).read_text(errors="replace").strip().splitlines()
        return lines[-1].removeprefix("error: ") if lines else f"ended with status {status}"

    def _stop_processes(self) -> None:
        """Lets every process write a checkpoint and end."""
        for active in self._active:
            active.process.terminate()
        for active in self._active:
            active.process.join()
            self._after(active, active.process.exitcode or 0)
        self._active.clear()
