"""The compiled library: its name, and how it is loaded."""

from __future__ import annotations

import functools
import hashlib
import itertools
import os
import platform
import warnings
from pathlib import Path
from typing import Any

import tensorflow as tf

from tf_compemb._cache import cache_folder
from tf_compemb._keras import is_compiled_by_xla
from tf_compemb.native_kernels import SWITCH

# Without errno and with `omp simd` loops over a row take several numbers at a time.
FLAGS = ("-O3", "-fno-math-errno", "-fopenmp-simd", "-fPIC")
# The processor's own instructions, as many as compile: with g++ 12 TensorFlow's Eigen does not for
# arithmetic in half precision, which the kernels have none of. The library's name tells processors
# apart. Not every compiler has the first for every processor (ARM), and an old one knows no third.
PROCESSOR_FLAGS: tuple[tuple[str, ...], ...] = (
    ("-march=native",),
    ("-march=native", "-mno-avx512fp16"),
    ("-march=native", "-mno-avx512f"),
    ("-mcpu=native",),
    (),
)


def sources() -> list[Path]:
    """The C++ files, those to compile and those that they include."""
    folder = Path(__file__).parent
    return sorted([*folder.glob("*.cc"), *folder.glob("*.h")])


def library_path() -> Path:
    """Where the library is once it is built: a name for each TensorFlow, source and processor."""
    digest = hashlib.sha256()
    flags = (*FLAGS, *itertools.chain(*PROCESSOR_FLAGS), *tf.sysconfig.get_compile_flags())
    for part in (tf.version.GIT_VERSION, *flags, _processor()):
        digest.update(part.encode() + b"\0")
    for source in sources():
        digest.update(source.read_bytes() + b"\0")
    name = f"rows-tensorflow-{tf.__version__}-{digest.hexdigest()[:16]}.so"
    return cache_folder() / "native_kernels" / name


@functools.cache
def loaded() -> Any:
    """The module of the library's ops; None if it is not built, or left out by `SWITCH`."""
    path = library_path()
    if os.environ.get(SWITCH) == "0" or not path.exists():
        return None
    try:
        return tf.load_op_library(str(path))
    except (tf.errors.OpError, RuntimeError) as error:
        warnings.warn(
            f"The compiled kernels in {path} do not load ({error}), so TensorFlow's own ops are "
            "used. Delete the file and build it again: tf-compemb native-kernels",
            stacklevel=2,
        )
        return None


def can_run_on(table: Any) -> bool:
    """Whether the kernels take a table: float32, on this process' CPU, not under XLA."""
    device = tf.DeviceSpec.from_string(table.device)
    return (
        len(table.shape) == 2
        and table.dtype == tf.float32
        and device.device_type in (None, "CPU")
        and device.job != "ps"
        and not is_compiled_by_xla()
    )


def _processor() -> str:
    """What distinguishes processors for a compiler."""
    lines = [platform.machine()]
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        first = cpuinfo.read_text().partition("\n\n")[0].splitlines()
        keys = ("vendor_id", "cpu family", "model", "model name", "flags", "Features")
        lines += [line for line in first if line.partition(":")[0].strip() in keys]
    return "\n".join(lines)
