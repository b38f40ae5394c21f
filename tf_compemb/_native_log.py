"""TensorFlow for programs: imported without the log lines that its C++ prints on the terminal."""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

_VARIABLE = "TF_CPP_MIN_LOG_LEVEL"
_SEVERITIES = b"IWE"  # A level hides so many of them.
# absl's lines, and those of TensorFlow Lite.
_LINE = re.compile(rb"([IWE])\d{4} |(I)NFO: |(W)ARNING: ")
_HEADER = b"WARNING: All log messages before absl"


def import_tensorflow_quietly(*more: str) -> Any:
    """The module `tensorflow`, with its log at errors only, unless the environment has a level.

    Args:
        *more: Modules that import TensorFlow's libraries too, to be imported with it.

    Raises:
        ImportError: One of the modules is not installed.
    """
    os.environ.setdefault(_VARIABLE, "3")
    with without_native_log():
        tensorflow, *_ = [importlib.import_module(name) for name in ("tensorflow", *more)]
    if _hidden() == _SEVERITIES:
        tensorflow.get_logger().setLevel(logging.ERROR)
    return tensorflow


@contextlib.contextmanager
def without_native_log() -> Iterator[None]:
    """Drops what C++ logs on stderr below the environment's level, which it does not always heed.

    TensorFlow does not while it is imported: its logging is not initialised yet. TensorFlow Lite
    never does. Everything else is shown afterwards.
    """
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as captured:
        os.dup2(captured.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(shown, 2)
            os.close(shown)
            captured.seek(0)
            for line in _without_hidden(captured):
                os.write(2, line)


def _without_hidden(lines: Iterator[bytes]) -> Iterator[bytes]:
    hidden, header = _hidden(), b""
    for line in lines:
        found = _LINE.match(line)
        if line.startswith(_HEADER):  # Worth showing with a line that it is about.
            header = line
        elif found is None:
            yield line
        elif found[found.lastindex or 0] not in hidden:
            yield header + line
            header = b""


def _hidden() -> bytes:
    level = os.environ.get(_VARIABLE, "3")
    return _SEVERITIES[: int(level)] if level.isdecimal() else b""
