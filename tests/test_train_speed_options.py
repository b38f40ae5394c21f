"""What only changes how quickly `tf-compemb train` goes."""

import json
import subprocess
import sys

import numpy as np
import pytest
from training_program import SMALL, history, metrics, needs_tf_keras, run_program

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

from click_rows import write_rows

from tf_compemb.training.environment import set_threads
from tf_compemb.training.errors import UserError

ROWS = 700  # 600 to train on: 19 steps of 32.


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TF_COMPEMB_CACHE", str(folder / "cache"))
        yield write_rows(folder / "train.txt", ROWS)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs") / "run"
    assert run_program("--data", data, *SMALL, "--checkpoint-every", "8", "--out", out) == 0
    return out


@pytest.mark.parametrize("batches", [1, 7])
def test_prefetching_changes_no_bit(run, data, tmp_path, batches):
    options = ["--data", data, *SMALL, "--checkpoint-every", "8", "--prefetch", batches]
    assert run_program(*options, "--out", tmp_path / "run") == 0
    assert history(tmp_path / "run") == history(run)
    assert metrics(tmp_path / "run")["test_loss"] == metrics(run)["test_loss"]
    options = json.loads((tmp_path / "run" / "config.json").read_text())["options"]
    assert "prefetch" not in options  # A run may go on with another.


def test_threads_are_set_and_a_run_goes_on_with_others(run, data, tmp_path):
    """In processes of their own: this one's threads are there already."""
    out = tmp_path / "run"
    program = """
import json, os, signal, sys
from tf_compemb.training.progress import StepProgress
from tf_compemb.train import main
if "--resume" not in sys.argv:
    StepProgress.show = lambda self, step, loss: step != 8 or os.kill(os.getpid(), signal.SIGTERM)
status = main(sys.argv[1:])
import tensorflow as tf
threading = tf.config.threading
numbers = [f"get_{kind}_op_parallelism_threads" for kind in ("intra", "inter")]
print(json.dumps([status, *(getattr(threading, number)() for number in numbers)]))
"""

    def found(*arguments):
        command = [sys.executable, "-c", program, *map(str, arguments), "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout.splitlines()[-1])

    started = ["--data", data, *SMALL, "--checkpoint-every", "8", "--steps-per-execution", "8"]
    assert found(*started, "--intra-op-threads", "1", "--inter-op-threads", "2") == [143, 1, 2]
    assert found("--resume", "--intra-op-threads", "2") == [0, 2, 0]
    assert metrics(out)["steps"] == 19
    assert np.isclose(metrics(out)["test_loss"], metrics(run)["test_loss"], rtol=1e-5)


def test_threads_that_are_there_already(data, tmp_path, run):
    """`run` has made this process' threads."""
    with pytest.raises(UserError, match="has made its threads already: start the training as"):
        set_threads(7, None)
    set_threads(None, None)
