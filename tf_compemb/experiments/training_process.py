"""A training run in a process of its own, which begins with TensorFlow imported.

Importing it takes five seconds of a processor, half of a short run, so one process imports it and
is forked for each run.
"""

from __future__ import annotations

import multiprocessing
import os
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import DupFd
from pathlib import Path
from typing import Any

from tf_compemb._child_process import end_with

# Only Linux forks safely what has loaded so many libraries.
_context: Any = multiprocessing.get_context("forkserver" if sys.platform == "linux" else "spawn")


def start(
    arguments: Sequence[str], environment: Mapping[str, str], log: Path, claim: int
) -> BaseProcess:
    """Starts `tf-compemb train` with arguments.

    Args:
        arguments: Of the program.
        environment: Variables of the process, beside those of this one.
        log: File for what it prints on stderr; what it prints on stdout is dropped.
        claim: File descriptor that it holds as long as it lives.

    Returns:
        The process; it leads a session of its own, so that Ctrl-C does not reach it, and ends with
        this one. The process that it is forked from ends when all of them have.
    """
    if sys.platform == "linux":
        _context.set_forkserver_preload(["tf_compemb.experiments.preloaded"])
    told = (list(arguments), {**environment}, str(log), DupFd(claim))
    process = _context.Process(target=_train, args=told)
    process.start()
    return process


def _train(arguments: list[str], environment: dict[str, str], log: str, claim: Any) -> None:
    os.setsid()
    parent = multiprocessing.parent_process()
    assert parent is not None
    end_with(parent.sentinel)
    claim.detach()
    _redirect(log)
    os.environ.update(environment)
    from tf_compemb.train import main

    sys.exit(main(arguments))


def _redirect(log: str) -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    written = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for target, source in ((0, nowhere), (1, nowhere), (2, written)):
        os.dup2(source, target)
