"""Memory of a server process: what it has of its own, its peak, and what it holds on a GPU."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from tf_compemb.training.errors import UserError

PROC = Path("/proc")

# NVML counts what TensorFlow's allocator took of the card: regions that double in size and are
# never given back, and the CUDA context, not the bytes of the tables.
GPU_NOTE = (
    "GPU memory is what the process holds of the card: with TF_FORCE_GPU_ALLOW_GROWTH=true up to "
    "twice the tables and more, as the allocator doubles its regions; without it nearly all of it"
)


class MeasurementError(UserError):
    """A process's memory cannot be read; the message says why and what to do."""


@dataclass(frozen=True)
class ProcessMemory:
    """Memory of a process and its children.

    Attributes:
        anonymous_bytes: `RssAnon`: resident memory that is backed by no file, so without
            libraries' code and without the page cache.
        peak_bytes: `VmHWM`: the largest resident memory there was, file-backed pages included.
    """

    anonymous_bytes: int
    peak_bytes: int


def process_tree(pid: int) -> list[int]:
    """The process and all its children: a container's first process may be a shell or an init.

    Raises:
        MeasurementError: There is no such process, or no `/proc`.
    """
    found, waiting = [], [pid]
    while waiting:
        process = waiting.pop()
        found.append(process)
        for children in (PROC / str(process) / "task").glob("*/children"):
            waiting += map(int, _read(children).split())
    return found


def process_memory(pid: int) -> ProcessMemory:
    """Memory of a process and its children, now.

    Raises:
        MeasurementError: There is no such process, or no `/proc`.
    """
    sizes = [_status_bytes(process) for process in process_tree(pid)]
    return ProcessMemory(
        sum(size["RssAnon"] for size in sizes), sum(size["VmHWM"] for size in sizes)
    )


def gpu_bytes(pid: int, nvml: Any = None) -> int | None:
    """Bytes that a process and its children hold on all GPUs, by NVML.

    Args:
        pid: The process, as the host numbers it.
        nvml: The module `pynvml` of nvidia-ml-py; None to import it.

    Returns:
        The bytes; None where nvidia-ml-py or a driver is missing, or the process uses no GPU.

    Raises:
        MeasurementError: The driver keeps the sizes of processes to itself.
    """
    nvml = nvml or _import_nvml()
    if nvml is None:
        return None
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # No driver on this machine.
        return None
    try:
        sizes = _gpu_sizes(nvml, set(process_tree(pid)))
    finally:
        nvml.nvmlShutdown()
    return sum(sizes) if sizes else None


def _gpu_sizes(nvml: Any, pids: set[int]) -> list[int]:
    sizes = []
    for index in range(nvml.nvmlDeviceGetCount()):
        card = nvml.nvmlDeviceGetHandleByIndex(index)
        for process in nvml.nvmlDeviceGetComputeRunningProcesses(card):
            if process.pid not in pids:
                continue
            if process.usedGpuMemory is None:
                raise MeasurementError(
                    f"The driver of GPU {index} does not say how much memory process {process.pid} "
                    "uses; measure on the host, outside of virtual machines and containers."
                )
            sizes.append(process.usedGpuMemory)
    return sizes


def _import_nvml() -> ModuleType | None:
    try:
        return importlib.import_module("pynvml")
    except ImportError:
        return None


def _status_bytes(pid: int) -> dict[str, int]:
    """The sizes in `/proc/PID/status`, which are in KiB there."""
    lines = (line.split() for line in _read(PROC / str(pid) / "status").splitlines())
    sizes = {words[0][:-1]: 1024 * int(words[1]) for words in lines if words[-1:] == ["kB"]}
    if "RssAnon" not in sizes:
        raise MeasurementError(f"Process {pid} has ended; its log says why.")
    return sizes


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError as error:
        if not PROC.joinpath("self").exists():
            message = "This system has no /proc, from which memory is read; measure on Linux."
        else:
            message = f"There is no process to measure: {path} cannot be read ({error.strerror})."
        raise MeasurementError(message) from error
