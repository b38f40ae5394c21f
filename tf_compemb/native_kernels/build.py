"""Compiles the kernels against the installed TensorFlow's headers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import tensorflow as tf

from tf_compemb.native_kernels.library import FLAGS, PROCESSOR_FLAGS, sources

_MISSING = r"(No such file or directory|file not found)"
# What in a compiler's log tells which remedy; the first that matches.
_REMEDIES = (
    (rf"(tensorflow|Eigen|absl|xla|tsl)/.*{_MISSING}", "install the package tensorflow again"),
    (rf"{_MISSING}", "install the C++ standard library's headers, as with the package g++"),
    (r"(cannot find|library not found|unable to find) .*tensorflow", "install tensorflow again"),
    (r"c\+\+17|C\+\+17", "install a newer compiler (g++ 9, clang 10), or set CXX to one"),
    (r"No space left", "free some space"),
    (r"Killed|killed by signal 9|[Oo]ut of memory|[Cc]annot allocate", "free some memory"),
)
_OTHERWISE = "another or a newer compiler may do (g++ 9, clang 10; set CXX to it)"


class BuildError(Exception):
    """The kernels could not be compiled; the message says why and what to do."""


class _CompilerError(Exception):
    """The compiler failed; the message is what it printed."""


def compiler() -> list[str]:
    """The C++ compiler, with options if it has any: `$CXX`, or the first one found.

    Raises:
        BuildError: There is none.
    """
    chosen = os.environ.get("CXX", "").strip()
    for command in [chosen] if chosen else ["g++", "clang++", "c++"]:
        name, *options = shlex.split(command)
        path = shutil.which(name)
        if path is not None:
            return [path, *options]
    if chosen:
        raise BuildError(f"CXX={chosen} in the environment is no program that can be run.")
    raise BuildError("No C++ compiler was found: install g++, or set CXX to the path of one.")


def compile_library(path: Path) -> tuple[str, ...]:
    """Compiles the kernels to a file, with the first of `PROCESSOR_FLAGS` that compile.

    Returns:
        Those flags.

    Raises:
        BuildError: There is no compiler, or it failed; the message has its first error.
    """
    program = compiler()
    failure = ""
    for flags in PROCESSOR_FLAGS:
        try:
            _compile(program, flags, path)
        except _CompilerError as error:
            failure = str(error)
        else:
            return flags
    raise BuildError(f"{shlex.join(program)} failed: {_first_error(failure)}; {_remedy(failure)}.")


def _compile(program: Sequence[str], flags: Sequence[str], path: Path) -> None:
    """Compiles source by source, so that flags that do not compile are known after the first."""
    files = [source for source in sources() if source.suffix == ".cc"]
    # Without warnings: they would be TensorFlow's.
    options = [*FLAGS, *flags, "-w"]
    with tempfile.TemporaryDirectory(prefix="tf_compemb-") as folder:
        objects = [str(Path(folder) / f"{file.stem}.o") for file in files]
        for file, compiled in zip(files, objects, strict=True):
            headers = tf.sysconfig.get_compile_flags()
            _run([*program, *options, "-c", str(file), "-o", compiled, *headers])
        libraries = tf.sysconfig.get_link_flags()
        _run([*program, *options, "-shared", *objects, "-o", str(path), *libraries])


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode < 0:
        raise _CompilerError(f"error: killed by signal {-done.returncode}\n{done.stderr}")
    if done.returncode:
        raise _CompilerError(done.stderr)


def _first_error(log: str) -> str:
    lines = [line.strip() for line in log.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return (errors or lines or ["it said nothing"])[0].rstrip(".")


def _remedy(log: str) -> str:
    return next((remedy for sign, remedy in _REMEDIES if re.search(sign, log)), _OTHERWISE)
