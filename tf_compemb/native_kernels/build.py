"""Compiles the kernels against the installed TensorFlow's headers."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import tensorflow as tf

from tf_compemb.native_kernels.library import FLAGS, sources


class BuildError(Exception):
    """The kernels could not be compiled; the message says why and what to do."""


def compiler() -> str:
    """The C++ compiler: `$CXX`, or the first one found.

    Raises:
        BuildError: There is none.
    """
    chosen = os.environ.get("CXX")
    for name in [chosen] if chosen else ["g++", "clang++", "c++"]:
        path = shutil.which(name)
        if path is not None:
            return path
    if chosen:
        raise BuildError(f"CXX={chosen} in the environment is no program that can be run.")
    raise BuildError("No C++ compiler was found: install g++, or set CXX to the path of one.")


def compile_library(path: Path) -> None:
    """Compiles the kernels to a file.

    Raises:
        BuildError: There is no compiler, or it failed; the message has its first error.
    """
    program = compiler()
    files = [str(source) for source in sources() if source.suffix == ".cc"]
    tensorflow_flags = [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    done = subprocess.run(
        # Without warnings: they would be TensorFlow's. Its flags come last, for the linker.
        [program, *FLAGS, "-w", *files, "-o", str(path), *tensorflow_flags],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise BuildError(f"{program} failed: {_first_error(done.stderr)}")


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[0]
