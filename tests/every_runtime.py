"""Runs the checks and the tests on every runtime, and says plainly what was not tested.

    python tests/every_runtime.py [--slow] [pytest arguments]

The runtimes are tf_keras, and Keras 3 on TensorFlow, JAX and torch. Two processes run at a time.
Tests marked slow run with --slow only.
"""

import importlib.util
import os
import re
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# What does not depend on the Keras of the layers is tested once, under tf_keras.
ON_ONE_RUNTIME = {
    "data and training": [
        *("test_data*", "test_models*", "test_train*", "test_command*", "test_packaging*"),
        *("test_missing*", "test_first_checks*"),
        *("test_benchmark*", "test_experiments*", "test_child_process*"),
    ],
    "export and serving": [
        *("test_native_session*", "test_serving*", "test_export_raw*", "test_export_program*"),
    ],
}

CHECKS = {
    "ruff check": ["-m", "ruff", "check", "."],
    "ruff format": ["-m", "ruff", "format", "--check", "."],
    "mypy": ["-m", "mypy"],
}
RUNTIMES = {
    "tf_keras": ({"TF_USE_LEGACY_KERAS": "1"}, "tf_keras"),
    "Keras 3 on TensorFlow": ({"KERAS_BACKEND": "tensorflow"}, "tensorflow"),
    "Keras 3 on JAX": ({"KERAS_BACKEND": "jax"}, "jax"),
    "Keras 3 on torch": ({"KERAS_BACKEND": "torch"}, "torch"),
}


def run(name: str, arguments: list[str], settings: dict[str, str]) -> tuple[str, bool, str, float]:
    environment = {k: v for k, v in os.environ.items() if k not in _RUNTIME_VARIABLES}
    started = time.monotonic()
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**environment, **settings},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    seconds = time.monotonic() - started
    print(f"--- {name} ({seconds:.0f} s)\n{done.stdout}", flush=True)
    return name, done.returncode == 0, done.stdout, seconds


_RUNTIME_VARIABLES = ("TF_USE_LEGACY_KERAS", "KERAS_BACKEND")


def jobs_of(pytest_arguments: list[str]) -> list[tuple[str, list[str], dict[str, str]]]:
    """Name, arguments of Python and environment of each process, the longest first."""
    pytest = ["-m", "pytest", "-q", *pytest_arguments]
    legacy = RUNTIMES["tf_keras"][0]
    jobs = []
    for name, patterns in ON_ONE_RUNTIME.items():
        files = sorted(str(f) for p in patterns for f in (ROOT / "tests").glob(f"{p}.py"))
        jobs.append((name, [*pytest, *files], legacy))
    elsewhere = [f"--ignore-glob=*/{p}.py" for ps in ON_ONE_RUNTIME.values() for p in ps]
    for name, (settings, module) in RUNTIMES.items():
        if importlib.util.find_spec(module) is not None:
            jobs.append((name, [*pytest, *elsewhere], settings))
    return jobs + [(name, arguments, {}) for name, arguments in CHECKS.items()]


def main() -> int:
    arguments = sys.argv[1:]
    if "--slow" in arguments:
        arguments.remove("--slow")
    else:
        arguments += ["-m", "not slow"]
    jobs = jobs_of(arguments)
    with ThreadPoolExecutor(2) as pool:
        results = list(pool.map(lambda job: run(*job), jobs))
    for name, good, _, seconds in results:
        print(f"{name:24} {'ok' if good else 'FAILED':8} {seconds:5.0f} s")
    for name, (_, module) in RUNTIMES.items():
        if importlib.util.find_spec(module) is None:
            print(
                f"{name:24} NOT TESTED: {module} is not installed (`make test BACKENDS={module}`)"
            )
    passed, failed = (
        sum(int(n) for _, _, out, _ in results for n in re.findall(rf"(\d+) {word}", out))
        for word in ("passed", "failed")
    )
    failed += sum(not good for name, good, _, _ in results if name in CHECKS)
    print(f"{passed} passed, {failed} failed")
    return 0 if all(good for _, good, _, _ in results) else 1


if __name__ == "__main__":
    sys.exit(main())
