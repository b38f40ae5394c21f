"""What a comparison ran on: versions and hardware, for the report."""

from __future__ import annotations

import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

from tf_compemb.training.environment import versions

_PACKAGES = ("tensorflow-serving-api", "grpcio")


def describe_machine() -> dict[str, Any]:
    """Processor, cores that may be used, memory in bytes, system, load average, versions."""
    found = versions()
    for name in _PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        # The work of others at the same time: latencies of a busy machine are not comparable.
        "load_average": os.getloadavg(),
        "versions": found,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
