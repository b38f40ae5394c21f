"""`tf-compemb native-kernels`: compiles the kernels, checks them, says where they are."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from pathlib import Path

from tf_compemb._program import Parser
from tf_compemb.missing_packages import reports_missing_packages
from tf_compemb.native_kernels import SWITCH

USER_ERROR = 2


@reports_missing_packages("train")
def main(argv: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The exit status: 0; 1 if the compiled kernels compute something else than TensorFlow's
        ops, in which case they are not kept; 2 if they cannot be compiled, which one sentence on
        standard error explains.
    """
    parser = Parser(prog="tf-compemb native-kernels")
    add_options(parser)
    parser.parse_args(argv)
    from tf_compemb._native_log import import_tensorflow_quietly

    import_tensorflow_quietly()
    from tf_compemb.native_kernels.build import BuildError
    from tf_compemb.native_kernels.check import WrongResultError

    try:
        _build_and_check()
    except WrongResultError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except (BuildError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return 130
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the program's description to a parser of its own; it has no options."""
    parser.description = (
        "Compiles kernels that read tables on the CPU in training, and update them by sgd, adagrad "
        "and rowwise_adagrad, against the installed TensorFlow, and checks them against its own "
        "ops. Takes a C++ compiler (CXX in the environment, or g++) and about a minute, once for "
        "each version of TensorFlow and of this package."
    )


def _build_and_check() -> None:
    from tf_compemb.native_kernels.build import compile_library, compiler
    from tf_compemb.native_kernels.library import library_path
    from tf_compemb.training.run_directory import replacing

    path = library_path()
    if path.exists():
        print(f"built before: {path}")
        _check(path)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            print(f"compiling with {shlex.join(compiler())} ...", flush=True)
            started = time.monotonic()
            flags = compile_library(temporary)
            print(f"compiled in {time.monotonic() - started:.0f} s")
            print(f"for this processor: {shlex.join(flags) or 'nothing, no such option compiles'}")
            _check(temporary)
        print(f"written to {path}")
    if os.environ.get(SWITCH) == "0":
        print(f"{SWITCH}=0 is set: the optimisers do not use it here.")
    else:
        print(f"The optimisers use it from now on; {SWITCH}=0 in the environment prevents that.")


def _check(path: Path) -> None:
    import tensorflow as tf

    from tf_compemb.native_kernels.check import largest_differences, refuse_wrong

    differences = largest_differences(tf.load_op_library(str(path)))
    shown = ", ".join(f"{rule} {value:.1e}" for rule, value in differences.items())
    print(f"largest differences from TensorFlow's ops: {shown}")
    refuse_wrong(differences, path)


if __name__ == "__main__":
    sys.exit(main())
