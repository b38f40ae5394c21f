"""What has to be set before TensorFlow is imported, and how much it may print."""

from __future__ import annotations

import ctypes
import os
import platform
import resource
import sys
from importlib import metadata

from tf_compemb._native_log import import_tensorflow_quietly
from tf_compemb.missing_packages import MODULES, require
from tf_compemb.training.errors import UserError

_M_ARENA_MAX = -8  # Of glibc's malloc.h.
_PACKAGES = ("tensorflow", "tf_keras", "keras", "tensorflow-recommenders", "numpy", "pyarrow")


def prepare_tensorflow() -> None:
    """Selects tf_keras, which tensorflow-recommenders needs, quiets TensorFlow's log, sets malloc.

    What the user has set in the environment about logging and malloc stays.

    Raises:
        UserError: TensorFlow runs already with Keras 3.
        MissingPackageError: A package of the extra `train` is not installed.
    """
    check_packages()
    os.environ["TF_USE_LEGACY_KERAS"] = "1"
    os.environ["KERAS_BACKEND"] = "tensorflow"
    import_tensorflow_quietly("tensorflow_recommenders")


def check_packages() -> None:
    """Makes sure that TensorFlow can be imported as `prepare_tensorflow` does; sets malloc.

    For what is done before, such as reading data for minutes.

    Raises:
        UserError: As of `prepare_tensorflow`.
        MissingPackageError: As of `prepare_tensorflow`.
    """
    require("Training", MODULES["train"], "train")
    if "tensorflow" in sys.modules and os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true"):
        raise UserError(
            "Training needs TF_USE_LEGACY_KERAS=1 before TensorFlow is imported, and TensorFlow is "
            "imported already: set it at the start of the program."
        )
    _allocate_from_one_arena()


def set_threads(intra_op: int | None, inter_op: int | None) -> None:
    """Sets how many threads TensorFlow's operations have; None leaves TensorFlow's own choice.

    Args:
        intra_op: Threads within an operation.
        inter_op: Operations at the same time.

    Raises:
        UserError: TensorFlow has made its threads already, and their number is another.
    """
    import tensorflow as tf

    threading = tf.config.threading
    try:
        if intra_op is not None:
            threading.set_intra_op_parallelism_threads(intra_op)
        if inter_op is not None:
            threading.set_inter_op_parallelism_threads(inter_op)
    except RuntimeError as error:
        raise UserError(
            "--intra-op-threads and --inter-op-threads cannot be met, for TensorFlow has made its "
            "threads already: start the training as a program of its own."
        ) from error


def _allocate_from_one_arena() -> None:
    """Keeps glibc from handing memory back to the system at every step.

    The arenas that glibc gives to threads unmap a temporary tensor's memory as soon as it is
    freed, and the next step maps it again. The main arena keeps it.
    """
    if platform.libc_ver()[0] == "glibc" and "MALLOC_ARENA_MAX" not in os.environ:
        ctypes.CDLL(None).mallopt(_M_ARENA_MAX, 1)


def versions() -> dict[str, str]:
    """Versions of this package, Python and what training runs on."""
    from tf_compemb import __version__

    found = {"tf_compemb": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found


def peak_rss_bytes() -> int:
    """Largest resident memory that this process has had, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak  # Linux counts in KiB.


def total_bytes() -> int | None:
    """Memory of this machine, or None where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return None
