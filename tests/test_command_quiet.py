"""Programs print what they have to say, and nothing of what TensorFlow logs when it starts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from training_program import SMALL, needs_tf_keras, run_program

from tf_compemb._native_log import without_native_log

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

ROOT = Path(__file__).resolve().parent.parent
HEADER = b"WARNING: All log messages before absl::InitializeLog() is called are written to STDERR\n"
INFO = b"I0000 00:00:1795952813.870933   30577 port.cc:153] oneDNN custom operations are on.\n"
WARNING = b"W0000 00:00:1795952813.870933   30577 gpu_device.cc:2344] Cannot dlopen libraries.\n"
ERROR = b"E0000 00:00:1795952830.170550   30577 cuda_platform.cc:52] failed call to cuInit.\n"
LITE = b"INFO: Created TensorFlow Lite XNNPACK delegate for CPU.\n"
OTHERS = b"a warning of Python's\nImportant: E0000\n"


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("0", HEADER + INFO + WARNING + ERROR + LITE + OTHERS),
        ("1", HEADER + WARNING + ERROR + OTHERS),
        ("2", HEADER + ERROR + OTHERS),
        ("3", OTHERS),
        ("4", OTHERS),
        ("", HEADER + INFO + WARNING + ERROR + LITE + OTHERS),
        (None, OTHERS),
    ],
)
def test_lines_below_the_level_are_dropped_and_all_others_stay(level, shown, capfd, monkeypatch):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL", raising=False)
    if level is not None:
        monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", level)
    with without_native_log():
        os.write(2, HEADER + INFO + WARNING + ERROR + LITE + OTHERS)
    assert capfd.readouterr().err.encode() == shown


@without_native_log()
def fail_after_logging():
    os.write(2, INFO + OTHERS)
    raise OSError("full")


def test_what_was_logged_before_an_error_is_shown(capfd):
    with pytest.raises(OSError, match="full"):
        fail_after_logging()
    assert capfd.readouterr().err.encode() == OTHERS


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("quiet")
    arguments = ["--rows", "400", *SMALL, "--cache", folder / "cache", "--out", folder / "run"]
    assert run_program(*arguments) == 0
    return folder / "run"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "level"),
    [
        ("train --dry-run --cardinalities 5,6 --embedding qr", None),
        ("train --dry-run --cardinalities 5,6 --embedding qr", "3"),
        ("train --rows 400 --cache {run}/../cache --out {out}/run", None),
        ("export {run} --out {out}", None),
        ("export {run} --out {out} --format tflite", None),
        ("serving empty --out {out}", None),
        ("serving empty --out {out}", "3"),
        ("reconstruction {run} --out {out}", None),
    ],
)
def test_a_program_that_succeeds_says_nothing_on_stderr(arguments, level, run, tmp_path):
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    if level is not None:
        environment["TF_CPP_MIN_LOG_LEVEL"] = level
    given = arguments.format(run=run, out=tmp_path).split()
    # Lines of progress, which a slow machine may see, are none of TensorFlow's.
    script = f"""
import sys
from tf_compemb import progress_lines
progress_lines._FIRST_SECONDS = 3600.0
from tf_compemb.command_line import main
sys.exit(main({given!r}))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout
