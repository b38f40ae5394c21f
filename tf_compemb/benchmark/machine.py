"""The machine that numbers were taken on, and what of it was set."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

_HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_THREADS = ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS")


def describe() -> dict[str, Any]:
    """Processor, cores, memory, system, and the settings that change what is measured."""
    settings = {
        name: os.environ[name] for name in ("GLIBC_TUNABLES", *_THREADS) if name in os.environ
    }
    return {
        "processor": _first("/proc/cpuinfo", "model name") or platform.processor() or "unknown",
        "cores": core_count(),
        "memory_bytes": _kilobytes("MemTotal"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "transparent_huge_pages": _transparent_huge_pages(),
        "environment": settings,
        "load_average_at_start": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
    }


def summary(machine: dict[str, Any]) -> str:
    """One line about a machine."""
    memory = machine["memory_bytes"]
    settings = [f"{name}={value}" for name, value in machine["environment"].items()]
    parts = [
        f"{machine['processor']}, {machine['cores']} cores",
        f"{memory / 2**30:.0f} GiB" if memory else "",
        f"huge pages {machine['transparent_huge_pages']}",
        *settings,
    ]
    return ", ".join(filter(None, parts))


def warning(machine: dict[str, Any]) -> str | None:
    """A sentence where other programs keep the machine busy, or None.

    >>> warning({"load_average_at_start": [3.0, 2.0, 1.0], "cores": 4})
    'The machine is busy (load 3.0 on 4 cores): the numbers will scatter, those of torch most.'
    """
    load = machine["load_average_at_start"]
    if load is None or load[0] < machine["cores"] / 2:
        return None
    return (
        f"The machine is busy (load {load[0]:.1f} on {machine['cores']} cores): the numbers will "
        "scatter, those of torch most."
    )


def core_count() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def available_bytes() -> int | None:
    """Memory that is free or can be freed, or None where the system does not say."""
    return _kilobytes("MemAvailable")


def _transparent_huge_pages() -> str:
    """The choice in brackets, such as "madvise"."""
    if not _HUGE_PAGES.exists():
        return "unknown"
    return _HUGE_PAGES.read_text().partition("[")[2].partition("]")[0]


def _kilobytes(name: str) -> int | None:
    found = _first("/proc/meminfo", name)
    return int(found.split()[0]) * 1024 if found else None


def _first(path: str, name: str) -> str | None:
    """The value of the first line `name: value` of a file."""
    if not Path(path).exists():
        return None
    with open(path) as file:
        for line in file:
            key, _, value = line.partition(":")
            if key.strip() == name:
                return value.strip()
    return None
