"""Suites of what surrounds the layers: data, serving, memory."""

from __future__ import annotations

from tf_compemb.benchmark.cases import Bound, Case, Group, Suite
from tf_compemb.benchmark.methods import METHODS
from tf_compemb.benchmark.units import SECONDS

_DIM = 16


def ingest_suite(quick: bool) -> Suite:
    """Raw text to the prepared data set, and reading it back."""
    measures = ("rows_per_second", "peak_rss_bytes", SECONDS)
    rows_of = (200, 400) if quick else (10**6, 10**7)
    groups = []
    for encoder in ("vocabulary", "hash"):
        cases = [
            Case(f"{rows:,} rows, {task}", "programs", task, {"rows": rows, "encoder": encoder})
            for rows in rows_of
            for task in ("prepare", "read")
        ]
        small, large = (f"{rows:,} rows, prepare" for rows in rows_of)
        bounds = [
            Bound(small, large, 1.15, "rows_per_second"),
            Bound(large, None, 2e9, "peak_rss_bytes"),
        ]
        groups.append(Group(encoder, cases, bounds=bounds, once=True))
    return Suite(
        "ingest",
        "Criteo text to the prepared data set, and reading it in batches (synthetic rows)",
        "Each program once, in a process of its own. Read: an epoch in shuffled batches of 2,048, "
        "after a first one that is not timed. Rows have the Kaggle data's cardinalities.",
        groups,
        measures,
    )


def serve_suite(quick: bool) -> Suite:
    """Latency of an exported model in TensorFlow's C++ session, which TF-Serving uses too."""
    rows = 1_000 if quick else 3_000_000
    groups = []
    for batch in (1, 8) if quick else (1, 64, 1024):
        settings = {"rows": rows, "batch": batch, "dim": _DIM}
        cases = [
            Case(method, "served", "serve", {**settings, "method": method})
            for method in ("full", "qr", "path")
        ]
        bounds = [Bound("qr", "full", 1.15)] if batch == 1 else []
        groups.append(Group(f"{rows:,} rows, batch {batch}", cases, "full", None, bounds))
    return Suite(
        "serve",
        "Latency of the exported DLRM",
        "An untrained SavedModel in the C++ session, without a network. / base: over full tables.",
        groups,
    )


def memory_suite(quick: bool) -> Suite:
    """What tables and optimiser state take, by formula and by the operating system."""
    measures = ("rss_bytes", "footprint_bytes", "state_rss_bytes", "state_bytes")
    rows = 1_000 if quick else 10**7
    groups = []
    for optimizer in ("adagrad", "amsgrad"):
        common = {"rows": rows, "dim": _DIM, "batch": 128, "optimizer": optimizer}
        cases = [
            Case(method, "process-memory", "memory", {**common, "method": method})
            for method in METHODS
        ]
        groups.append(Group(f"{rows:,} rows, {optimizer}", cases, once=True, fresh=True))
    return Suite(
        "memory",
        "Memory of tables and optimiser state",
        "RSS: growth of anonymous resident memory in a fresh process, when the tables are made and "
        "when the optimiser has made three steps, the process' other growth included.",
        groups,
        measures,
        "points",
    )
