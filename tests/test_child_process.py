"""Processes that the programs start end with them, however those end."""

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from training_program import needs_tf_keras

from tf_compemb import _child_process
from tf_compemb.serving import memory

if os.name != "posix":
    pytest.skip("needs signals and inherited descriptors", allow_module_level=True)

REPOSITORY = Path(__file__).resolve().parent.parent

# A program as `start` starts it: says when it runs, and holds what it inherits as long as it does.
PROGRAM = """
import signal, sys, time
if "deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("running", *sys.argv[1:], flush=True)
time.sleep(600)
"""
PARENT = """
import os, signal, sys, time
from tf_compemb import _child_process
# Whatever the tests were started with: a shell's background jobs ignore some signals.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
child = _child_process.start("program_of_the_test", ["with", "arguments"])
sys.stdin.readline()
{end}
time.sleep(600)
"""
ENDS = {
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "told": "os.kill(os.getpid(), signal.SIGTERM)",
    "hung up": "os.kill(os.getpid(), signal.SIGHUP)",
    "interrupted": "os.kill(os.getpid(), signal.SIGINT)",
    "error": "raise RuntimeError",
    "done": "sys.exit(0)",
    "left": "os._exit(0)",
}


def started(folder, script):
    """A Python process; its standard output is held by its children too."""
    (folder / "program_of_the_test.py").write_text(PROGRAM)
    paths = os.pathsep.join([str(folder), str(REPOSITORY)])
    return subprocess.Popen(
        [sys.executable, "-c", script],
        env={**os.environ, "PYTHONPATH": paths},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )


def has_ended(stream, seconds):
    """Whether all who could write to a pipe are gone within a time."""
    ready, _, _ = select.select([stream], [], [], seconds)
    return bool(ready) and stream.read() == ""


@pytest.mark.parametrize("end", ENDS)
def test_a_child_ends_with_its_parent(tmp_path, end):
    parent = started(tmp_path, PARENT.format(end=ENDS[end]))
    with parent:
        assert parent.stdout.readline() == "running with arguments\n"
        assert not has_ended(parent.stdout, 0.2)
        parent.stdin.write("end\n")
        parent.stdin.flush()
        try:
            assert has_ended(parent.stdout, 60)
        finally:
            parent.kill()


def test_a_child_that_does_not_listen_is_killed(tmp_path):
    reading, writing = os.pipe()
    script = f"from tf_compemb._child_process import end_with; end_with({reading}, grace=0.1)\n"
    script += PROGRAM.replace('if "deaf" in sys.argv:', "if True:")
    child = subprocess.Popen(
        [sys.executable, "-c", script],
        cwd=REPOSITORY,
        pass_fds=[reading],
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        os.close(reading)
        assert child.stdout.readline() == "running\n"
        os.close(writing)
        assert child.wait(60) == -signal.SIGKILL


def test_a_child_does_not_keep_its_siblings_alive(tmp_path):
    """The other end of the pipe is nobody's but the parent's."""
    (tmp_path / "program_of_the_test.py").write_text(PROGRAM)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPOSITORY)])}
    child = _child_process.start(
        "program_of_the_test", [], env=environment, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout.readline() == "running\n"
        pipe = os.stat(_child_process.lifeline()).st_ino
        folder = Path(f"/proc/{child.pid}/fd")
        if folder.exists():
            ends = [fd for fd in folder.iterdir() if os.stat(fd).st_ino == pipe]
            assert [fd.name for fd in ends] == [str(_child_process.lifeline())]
        child.terminate()


EXPERIMENTS = """
import os, sys, time
from tf_compemb.experiments import training_process
out = sys.argv[1]
told = ["--rows", "2000", "--epochs", "100000", "--out", out + "/run"]
process = training_process.start(told, {}, out + "/log", os.open(out, os.O_RDONLY))
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.slow
@pytest.mark.skipif(needs_tf_keras() is not None, reason=str(needs_tf_keras()))
@pytest.mark.skipif(sys.platform != "linux", reason="the fork server is Linux's")
def test_nothing_is_left_of_an_experiment_that_is_killed(tmp_path):
    """Neither the run, which writes a checkpoint first, nor the process it is forked from."""
    parent = subprocess.Popen(
        [sys.executable, "-c", EXPERIMENTS, str(tmp_path)],
        cwd=REPOSITORY,
        env={**os.environ, "TF_COMPEMB_CACHE": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        text=True,
    )
    with parent:
        run = int(parent.stdout.readline())
        wait_until(lambda: (tmp_path / "run" / "history.csv").exists(), 240)
        others = set(memory.process_tree(parent.pid)) - {parent.pid}
        assert run in others
        assert len(others) >= 3  # The fork server, and multiprocessing's tracker of resources.
        parent.kill()
        wait_until(lambda: not any(is_running(pid) for pid in others), 120)
    assert "stopped by SIGTERM after a checkpoint" in (tmp_path / "log").read_text()


def wait_until(is_true, seconds):
    end = time.monotonic() + seconds
    while not is_true():
        assert time.monotonic() < end
        time.sleep(0.1)


def is_running(pid):
    try:
        return "State:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
