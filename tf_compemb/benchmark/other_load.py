"""How much of the processors other programs took while a group was measured."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from tf_compemb.benchmark.machine import core_count

# Above it the verdicts of a group are marked: threads that wait by spinning, as those of torch do,
# then take many times longer.
HARMLESS_SHARE = 0.1


class OtherLoad:
    """Counts processor time from its creation on, in all and of our own processes."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self._all = _all_seconds()

    def share(self, own_seconds: float) -> float | None:
        """Share of all cores that other programs took, or None where the system does not say.

        Args:
            own_seconds: Processor time of our processes meanwhile.
        """
        now = _all_seconds()
        if now is None or self._all is None:
            return None
        elapsed = time.monotonic() - self._started
        return max(0.0, now - self._all - own_seconds) / (elapsed * core_count())


def seconds_of(pids: Sequence[int]) -> float:
    """Processor time of processes so far, with that of their children that have ended."""
    total = 0.0
    for pid in pids:
        path = Path(f"/proc/{pid}/stat")
        if path.exists():
            # The name, in parentheses, may hold blanks; utime, stime, cutime, cstime come later.
            fields = path.read_text().rpartition(")")[2].split()
            total += sum(map(int, fields[11:15])) / _ticks()
    return total


def _all_seconds() -> float | None:
    """Time in which the processors were busy: user, nice and system."""
    path = Path("/proc/stat")
    if not path.exists():
        return None
    with path.open() as file:
        user, nice, system = map(int, file.readline().split()[1:4])
    return (user + nice + system) / _ticks()


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")
