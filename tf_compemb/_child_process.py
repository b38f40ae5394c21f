"""Processes that end with the one that started them, however that ends: by a signal, by an error.

The parent keeps the writing end of a pipe that nothing is ever written to, and a child the reading
end. The system closes the parent's with the parent, even where it is killed, and then a read in the
child returns: it asks itself to stop, as SIGTERM does, and after a while does not ask.

`python -m tf_compemb._child_process DESCRIPTOR MODULE ARGUMENT...` is the child that `start` makes.
"""

from __future__ import annotations

import functools
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import Any

# Time for a training run to write a checkpoint, and for a server to finish its requests.
GRACE_SECONDS = 60.0


def start(module: str, arguments: Sequence[str], **settings: Any) -> subprocess.Popen[Any]:
    """Starts `python -m module` as a process that ends with this one.

    Args:
        module: With a `main` of its own, as `tf_compemb.train`.
        arguments: Of the program.
        **settings: As of `subprocess.Popen`.
    """
    descriptor = lifeline()
    command = [sys.executable, "-m", __name__, str(descriptor), module, *arguments]
    return subprocess.Popen(command, pass_fds=[descriptor], **settings)


@functools.cache
def lifeline() -> int:
    """A descriptor to pass on to children, and by them to `end_with`: its pipe ends with us."""
    reading, _ = os.pipe()  # The other end stays open as long as this process is there.
    return reading


def end_with(descriptor: int, grace: float = GRACE_SECONDS) -> None:
    """Ends this process when a pipe ends, from a thread of its own; returns at once.

    Args:
        descriptor: The reading end of a pipe that the parent alone keeps open.
        grace: Seconds between SIGTERM and SIGKILL.
    """
    threading.Thread(target=_end_after, args=[descriptor, grace], daemon=True).start()


def _end_after(descriptor: int, grace: float) -> None:
    os.read(descriptor, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(grace)
    os.kill(os.getpid(), signal.SIGKILL)


def _main() -> None:
    descriptor, module, *arguments = sys.argv[1:]
    end_with(int(descriptor))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    _main()
