"""Counters and latencies in Prometheus's text format, under TensorFlow Serving's names."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Mapping

_PREFIX = ":tensorflow:serving:"
# Upper bounds in microseconds: powers of 1.8 from 10, as TensorFlow Serving's.
_BOUNDS = [10 * 1.8**power for power in range(33)]

Labels = tuple[tuple[str, str], ...]


class Metrics:
    """All series of a server; every method may be called from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counters: dict[str, dict[Labels, int]] = {}
        self._latencies: dict[str, dict[Labels, _Histogram]] = {}

    def count(self, name: str, labels: Mapping[str, str]) -> None:
        """Adds one to a counter."""
        key = tuple(labels.items())
        with self._lock:
            series = self._counters.setdefault(name, {})
            series[key] = series.get(key, 0) + 1

    def observe(self, name: str, labels: Mapping[str, str], seconds: float) -> None:
        """Adds a duration to a histogram, which is in microseconds."""
        key = tuple(labels.items())
        with self._lock:
            histogram = self._latencies.setdefault(name, {}).setdefault(key, _Histogram())
            histogram.add(seconds * 1e6)

    def request(self, model: str, kind: str, protocol: str, status: str, seconds: float) -> None:
        """Notes an answered request.

        Args:
            model: The model's name; empty for one that is not served, so that requests for
                invented names take no memory.
            kind: Such as `"predict"`.
            protocol: `"GRPC"` or `"REST"`.
            status: The name of the status code.
            seconds: From the request's arrival to its answer.
        """
        self.count("request_count", {"model_name": model, "status": status})
        labels = {"model_name": model, "API": kind, "entrypoint": protocol}
        self.observe("request_latency", labels, seconds)

    def text(self) -> str:
        """Everything, in the text exposition format 0.0.4."""
        lines = []
        with self._lock:
            for name, counters in self._counters.items():
                lines.append(f"# TYPE {_full(name)} counter")
                lines += [f"{_full(name)}{_braced(k)} {v}" for k, v in counters.items()]
            for name, histograms in self._latencies.items():
                lines.append(f"# TYPE {_full(name)} histogram")
                for labels, histogram in histograms.items():
                    lines += histogram.lines(_full(name), labels)
        return "\n".join(lines) + "\n"


class _Histogram:
    def __init__(self) -> None:
        self.buckets = [0] * (len(_BOUNDS) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        self.buckets[bisect_left(_BOUNDS, value)] += 1
        self.total += value

    def lines(self, name: str, labels: Labels) -> list[str]:
        lines, below = [], 0
        for bound, bucket in zip([*_BOUNDS, float("inf")], self.buckets, strict=True):
            below += bucket
            upper = "+Inf" if bound == float("inf") else f"{bound:.6g}"
            lines.append(f"{name}_bucket{_braced((*labels, ('le', upper)))} {below}")
        lines.append(f"{name}_sum{_braced(labels)} {self.total:.6g}")
        lines.append(f"{name}_count{_braced(labels)} {below}")
        return lines


def _full(name: str) -> str:
    return name if name.startswith(":") else _PREFIX + name


def _braced(labels: Labels) -> str:
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
