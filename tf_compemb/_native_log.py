"""TensorFlow for programs: imported without the log lines that its C++ prints on the terminal."""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import sys
import tempfile
from collections.abc import Iterator
from typing import Any

_NATIVE_LOG_LINE = re.compile(rb"[IWE]\d{4} |WARNING: All log messages before absl")


def import_tensorflow_quietly(*more: str) -> Any:
    """The module `tensorflow`, with its log at errors only, unless the user chose a level.

    Args:
        *more: Modules that import TensorFlow's libraries too, to be imported with it.

    Raises:
        ImportError: One of the modules is not installed.
    """
    chosen_by_user = "TF_CPP_MIN_LOG_LEVEL" in os.environ
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    with contextlib.nullcontext() if chosen_by_user else without_native_log():
        tensorflow, *_ = [importlib.import_module(name) for name in ("tensorflow", *more)]
    return tensorflow


@contextlib.contextmanager
def without_native_log() -> Iterator[None]:
    """Drops what TensorFlow's C++ logs on stderr; everything else is shown afterwards.

    While it is imported TensorFlow heeds no log level: its logging is not initialised yet.
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
            for line in captured:
                if not _NATIVE_LOG_LINE.match(line):
                    os.write(2, line)
