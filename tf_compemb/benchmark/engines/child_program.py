"""Our own programs, run as a user runs them."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tf_compemb._child_process import start


def run_program(module: str, *arguments: str | Path) -> int:
    """Runs `python -m module`; its peak resident memory in bytes.

    Linux counts in the peak what this process had when it started the program: where the peak
    matters, nothing large may have been imported.

    Raises:
        RuntimeError: It failed; the message is its last line.
    """
    package = Path(__file__).resolve().parents[3]
    paths = [str(package), *filter(None, [os.environ.get("PYTHONPATH")])]
    with tempfile.TemporaryFile() as output:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
        told = list(map(str, arguments))
        process = start(module, told, stdout=output, stderr=output, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            output.seek(0)
            lines = output.read().decode(errors="replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"{module} failed")
    return usage.ru_maxrss if sys.platform == "darwin" else 1024 * usage.ru_maxrss
