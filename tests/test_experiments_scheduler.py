"""The store of runs and the scheduler."""

import functools
import os
import signal
import subprocess
import sys
import threading
import time

import pytest
from experiment_runs import GRID, planned
from training_program import needs_tf_keras

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

from tf_compemb.experiments import scheduler, training_process
from tf_compemb.experiments.run_store import RunStore


def test_a_claimed_run_is_left_to_the_process_that_has_it(tmp_path):
    store = RunStore(tmp_path)
    claim = store.claim("k")
    assert store.claim("k") is None
    # A process that inherits the claim keeps it when the one that made it is gone.
    child = subprocess.Popen(["sleep", "60"], pass_fds=(claim,))
    try:
        os.close(claim)
        assert store.claim("k") is None
    finally:
        child.kill()
        child.wait()
    again = store.claim("k")
    assert again is not None
    os.close(again)


def test_what_a_kill_left_is_cleared_or_resumed(tmp_path):
    store = RunStore(tmp_path)
    folder = store.directory("k").path
    (folder / "checkpoints").mkdir(parents=True)
    (folder / ".config.json.77.tmp.json").touch()
    assert not store.can_resume("k")
    assert list(folder.iterdir()) == []
    store.directory("k").config.write_text("{}")
    (folder / "checkpoints").mkdir()
    assert store.can_resume("k")
    store.directory("k").metrics.write_text("{}")
    store.finish("k")
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "metrics.json"]


# Stands for the training program: notes its start, waits, writes its metrics.
TRAINER = """
import json, pathlib, signal, sys, time
arguments = sys.argv[1:]
out = pathlib.Path(arguments[arguments.index("--out") + 1])
(out / "config.json").write_text("{}")
with (out.parent / "starts.txt").open("a") as file:
    file.write(f"{out.name} {'--resume' in arguments}\\n")
def stop(number, frame):
    sys.exit("error: stopped")
signal.signal(signal.SIGTERM, stop)
seed = arguments[arguments.index("--seed") + 1] if "--seed" in arguments else "0"
if seed == "1" and "adagrad" not in arguments and "amsgrad" not in arguments:
    sys.exit("error: no such luck.")
time.sleep(SECONDS)
(out / "metrics.json").write_text(json.dumps({"seed": seed}))
"""


class Pretended:
    """A process of `TRAINER`, as `multiprocessing` has them."""

    def __init__(self, seconds, arguments, environment, log, claim):
        with log.open("w") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-c", TRAINER.replace("SECONDS", str(seconds)), *arguments],
                stderr=file,
                env=environment,
                pass_fds=(claim,),
            )
        self.terminate = self._process.terminate
        self.join = self._process.wait

    @property
    def exitcode(self):
        return self._process.poll()


def work(store, finished, seconds=0):
    return scheduler.Scheduler(store, 2, finished, functools.partial(Pretended, seconds))


def starts(store):
    return (store.path / "starts.txt").read_text().splitlines()


def test_the_scheduler_does_each_run_once(tmp_path):
    _, _, runs = planned(tmp_path, optimizers=[{"optimizer": "amsgrad"}])
    store = RunStore(tmp_path / "runs")
    told = []
    first = work(store, lambda run, seconds: told.append((run.key, seconds > 0)))
    assert first.run([*runs, runs[0]]) == 0
    assert sorted(told) == sorted((run.key, True) for run in runs)
    assert len(starts(store)) == 6
    again = work(store, lambda run, seconds: told.append((run.key, seconds > 0)))
    assert again.run(runs) == 0
    assert told[6:] == [(run.key, False) for run in runs]
    assert len(starts(store)) == 6


def test_a_run_that_fails_is_named_and_the_others_go_on(tmp_path):
    _, _, runs = planned(tmp_path)
    chosen = [run for run in runs if run.options.optimizer == "adagrad"]  # Seed 1 of these fails.
    store = RunStore(tmp_path / "runs")
    some = work(store, lambda run, seconds: None)
    assert some.run(chosen) == 0
    failed = [run.key for run in chosen if run.seed == 1]
    assert some.failures == dict.fromkeys(failed, "no such luck.")
    assert all(store.is_finished(run.key) for run in chosen if run.seed == 0)


def test_a_signal_ends_the_processes_and_the_next_start_resumes_them(tmp_path):
    _, _, runs = planned(tmp_path, optimizers=[{"optimizer": "amsgrad"}])
    store = RunStore(tmp_path / "runs")
    first = work(store, lambda run, seconds: None, seconds=30)

    def interrupt():
        while not (store.path / "starts.txt").exists() or len(starts(store)) < 2:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    thread = threading.Thread(target=interrupt)
    thread.start()
    assert first.run(runs) == 128 + signal.SIGTERM
    thread.join()
    assert first.failures == {}
    assert work(store, lambda run, seconds: None).run(runs) == 0
    resumed = [line for line in starts(store) if line.endswith("True")]
    assert sorted(resumed) == sorted(f"{run.key} True" for run in runs[:2])
    assert GRID["seeds"] * 3 == len({line.split()[0] for line in starts(store)})


@pytest.mark.slow
def test_a_process_is_the_training_program_and_holds_the_claim(tmp_path):
    store = RunStore(tmp_path)
    claim = store.claim("k")
    log, missing = tmp_path / "log", tmp_path / "missing.txt"
    told = ["--data", str(missing), "--out", str(tmp_path / "out")]
    process = training_process.start(told, {}, log, claim)
    os.close(claim)
    assert store.claim("k") is None
    process.join()
    assert process.exitcode == 2
    (line,) = log.read_text().splitlines()
    assert line.startswith("error: ")
    assert str(missing) in line
    assert store.claim("k") is not None
