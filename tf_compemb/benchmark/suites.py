"""The suites: what is measured, beside what, and which bounds it is to meet."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_compemb.benchmark.cases import Bound, Case, Group, Suite
from tf_compemb.benchmark.device_suite import device_suite
from tf_compemb.benchmark.methods import EVERY_METHOD, LEAST_DIVISORS, METHODS
from tf_compemb.benchmark.product_suites import ingest_suite, memory_suite, serve_suite

DIM = 16
OURS = "ours, {method}, {runtime}"
RUNTIMES = {"tf_keras": "tf_keras", "keras3": "Keras 3"}
OUR_OPTIMIZERS = (
    "sgd",
    "adagrad",
    "rowwise_adagrad",
    "adam",
    "amsgrad",
    "lazy_adam",
    "lazy_amsgrad",
)
# Rules that at least one peer has: torch's SparseAdam is lazy Adam, its dense Adam has AMSGrad.
COMPARED_OPTIMIZERS = ("sgd", "adagrad", "rowwise_adagrad", "lazy_adam", "amsgrad")
_STOCK = ("sgd", "adagrad", "amsgrad")
_TORCH = ("sgd", "adagrad", "lazy_adam", "amsgrad")
_FUSED = ("sgd", "adagrad", "rowwise_adagrad")
# TensorFlow's operations without a layer, the method of ours that they bound, and by how much.
_BARE_FORMS = (
    ("bare path, fused", "path", 2.0),
    ("bare path, partitioned", "path", 2.0),
    ("bare quotient-remainder", "qr", 1.1),
)


def make_suites(quick: bool, device: str = "gpu") -> dict[str, Suite]:
    """All suites by name.

    Args:
        quick: Whether tables and batches are tiny: to see that everything runs.
        device: "gpu" or "cpu", of the suite `gpu`.
    """
    found = [
        _lookup(quick),
        _step(quick),
        _train(quick),
        _scale(quick),
        _methods(quick),
        _kernels(quick),
        ingest_suite(quick),
        serve_suite(quick),
        memory_suite(quick),
        device_suite(quick, device),
    ]
    return {suite.name: suite for suite in found}


def _lookup(quick: bool) -> Suite:
    groups = []
    for rows, batch in _sizes(quick):
        common = {"rows": rows, "batch": batch, "dim": DIM}
        cases = [*_ours("lookup", common, METHODS), *_stock("lookup", common)]
        cases += _peers("lookup", common, None)
        groups.append(_compared(f"{rows:,} rows, batch {batch}", "lookup", common, cases))
    return Suite(
        "lookup",
        "Lookup: ids of 26 fields to vectors",
        "Forward only. "
        + _limit_words("NumPy gathers the same rows, in one thread or all, whichever is faster"),
        groups,
    )


def _step(quick: bool) -> Suite:
    groups = []
    for optimizer in COMPARED_OPTIMIZERS:
        for rows, batch in _sizes(quick):
            common = {"rows": rows, "batch": batch, "dim": DIM, "optimizer": optimizer}
            cases = _ours("step", common, METHODS)
            if optimizer in _STOCK:
                cases += _stock("step", {**common, "stock_optimizer": True})
            cases += _peers("step", common, optimizer)
            name = f"{optimizer}, {rows:,} rows, batch {batch}"
            groups.append(_compared(name, "step", common, cases))
    return Suite(
        "step",
        "Embedding step: forward, backward, update",
        "The gradient of the vectors is given. "
        + _limit_words("NumPy gathers the same rows, then reads and writes each distinct row once"),
        groups,
    )


def _train(quick: bool) -> Suite:
    groups = []
    for optimizer in COMPARED_OPTIMIZERS:
        for rows, batch in _sizes(quick):
            common = {"rows": rows, "batch": batch, "dim": DIM, "optimizer": optimizer}
            cases = _ours("train", common, ("full", "qr"), yards=True)
            if optimizer in _STOCK:
                stock = {**common, "stock_optimizer": True}
                cases += _stock("train", stock, one_table=False, yards=True)
            peers = _peers("train", common, optimizer, yard="torch, network only")
            cases += [case for case in peers if case.engine != "keras-rs"]
            yards = _network_only(common)
            bounds = _bounds_over_peers(peers, at_most=1.0 if batch >= 2048 else 1.1)
            name = f"{optimizer}, {rows:,} rows, batch {batch}"
            baseline = _ours_name("full", "tf_keras")
            groups.append(Group(name, [*cases, *yards], baseline, None, bounds))
    return Suite(
        "train",
        "Training step of DLRM",
        "Bottom network 512-256-64-16, top network 512-256-1. / network: over the same step of "
        "the same framework without tables.",
        groups,
    )


def _scale(quick: bool) -> Suite:
    rows_of = (1_000, 2_000) if quick else (10**5, 10**6, 10**7, 34_000_000)
    bounded = rows_of[1] if quick else 10**7
    groups = []
    for engine, runtime in RUNTIMES.items():
        for optimizer in ("sgd", "amsgrad") if quick else OUR_OPTIMIZERS:
            for method in ("full", "qr"):
                for batch in (8,) if quick else (128, 2048):
                    settings = {
                        "method": method,
                        "optimizer": optimizer,
                        "batch": batch,
                        "dim": DIM,
                    }
                    cases = [
                        Case(f"{rows:,} rows", engine, "train", {**settings, "rows": rows})
                        for rows in rows_of
                    ]
                    first = cases[0].name
                    bounds = [Bound(f"{bounded:,} rows", first, 1.15)]
                    name = f"{runtime}, {method}, {optimizer}, batch {batch}"
                    # TensorFlow keeps the memory of tables that are gone.
                    groups.append(Group(name, cases, first, None, bounds, fresh=True))
    return Suite(
        "scale",
        "Training step of DLRM as tables grow",
        "/ base: over the step with the smallest tables.",
        groups,
        plot="lines",
    )


def _methods(quick: bool) -> Suite:
    groups = []
    for task in ("lookup", "step"):
        for rows, batch in _sizes(quick):
            common = {"rows": rows, "batch": batch, "dim": DIM, "optimizer": "adagrad"}
            cases = []
            for method in EVERY_METHOD:
                divisor = LEAST_DIVISORS.get(method, 10)
                name = method if divisor == 10 else f"{method}, 1/{divisor}"
                settings = {**common, "method": method, "divisor": divisor}
                cases.append(Case(name, "tf_keras", task, settings))
            groups.append(Group(f"{task}, {rows:,} rows, batch {batch}", cases, "full", None))
    return Suite(
        "methods",
        "Every method at a tenth of the full tables' bytes",
        "Sized as in the leaderboard, larger where a tenth is out of reach (ant, mlet); updates by "
        "Adagrad; in tf_keras. / base: over full tables.",
        groups,
    )


def _kernels(quick: bool) -> Suite:
    groups = []
    for optimizer in _FUSED:  # Those that the kernels have.
        for rows, batch in _sizes(quick):
            common = {"rows": rows, "batch": batch, "dim": DIM, "optimizer": optimizer}
            cases, bounds = _without_and_with_kernels("step", common)
            cases += [peer for peer in _peers("step", common, optimizer) if peer.engine == "fbgemm"]
            limit = Case("limit: NumPy", "numpy", "step", common)
            bounds.append(Bound("full, with kernels", "FBGEMM TBE", 1.2))
            name = f"{optimizer}, {rows:,} rows, batch {batch}"
            groups.append(Group(name, [*cases, limit], cases[0].name, limit.name, bounds))
    for rows, batch in _sizes(quick):
        common = {"rows": rows, "batch": batch, "dim": DIM}
        cases, bounds = _without_and_with_kernels("lookup", common)
        name = f"lookup, {rows:,} rows, batch {batch}"
        groups.append(Group(name, cases, cases[0].name, None, bounds))
    return Suite(
        "kernels",
        "Embeddings with the compiled kernels and without",
        "Forward, backward, update, in tf_keras; the last groups are lookups without a gradient. "
        "/ base: over full tables without the kernels. / limit: as in the suite `step`.",
        groups,
    )


def _without_and_with_kernels(task: str, common: dict[str, Any]) -> tuple[list[Case], list[Bound]]:
    """With them, compressed tables are compared with full ones."""
    compressed = ("hash", "qr", "crt")
    cases = [
        Case(f"{method}, {engine}", engine, task, {**common, "method": method})
        for method in ("full", *compressed)
        for engine in ("without kernels", "with kernels")
    ]
    names = [f"{method}, with kernels" for method in compressed]
    return cases, [Bound(name, "full, with kernels", 1.1) for name in names]


def _sizes(quick: bool) -> list[tuple[int, int]]:
    """(rows, batch) of the groups."""
    return [(1_000, 8)] if quick else [(10**6, 128), (10**6, 2048)]


def _limit_words(what: str) -> str:
    return (
        f"/ base: over our full table in tf_keras. / limit: over what the machine can do: {what}."
    )


def _ours_name(method: str, engine: str) -> str:
    return OURS.format(method=method, runtime=RUNTIMES[engine])


def _ours(task: str, common: dict[str, Any], methods: Any, yards: bool = False) -> list[Case]:
    return [
        Case(
            _ours_name(method, engine),
            engine,
            task,
            {**common, "method": method},
            f"{runtime}, network only" if yards else None,
        )
        for engine, runtime in RUNTIMES.items()
        for method in methods
    ]


def _stock(
    task: str, common: dict[str, Any], one_table: bool = True, yards: bool = False
) -> list[Case]:
    forms = {
        "stock": "26 Embeddings",
        **({"stock one table": "one Embedding"} if one_table else {}),
    }
    return [
        Case(
            f"{runtime}, {form}",
            engine,
            task,
            {**common, "method": method},
            f"{runtime}, network only" if yards else None,
        )
        for engine, runtime in RUNTIMES.items()
        for method, form in forms.items()
    ]


def _peers(
    task: str, common: dict[str, Any], optimizer: str | None, yard: str | None = None
) -> list[Case]:
    """Peers that have the optimiser; None stands for no update."""
    forms: list[tuple[str, str, str, Sequence[str]]] = [
        ("keras-rs, DistributedEmbedding", "keras-rs", "keras-rs", _STOCK),
        ("torch, 26 EmbeddingBags", "torch", "bags", _TORCH),
        ("torch, one Embedding", "torch", "one table", _TORCH),
        ("FBGEMM TBE", "fbgemm", "tbe", _FUSED),
        ("torchrec, fused", "torchrec", "torchrec", _FUSED),
    ]
    return [
        Case(
            name,
            engine,
            task,
            {
                **common,
                "method": method,
                "stock_optimizer": True,
            },
            yard,
        )
        for name, engine, method, optimizers in forms
        if optimizer is None or optimizer in optimizers
    ]


def _network_only(common: dict[str, Any]) -> list[Case]:
    settings = {**common, "method": "none"}
    names = {**RUNTIMES, "torch": "torch"}
    return [
        Case(f"{name}, network only", engine, "train", settings) for engine, name in names.items()
    ]


def _compared(name: str, task: str, common: dict[str, Any], cases: list[Case]) -> Group:
    """A group of embeddings alone, with its bounds."""
    limit = Case("limit: NumPy", "numpy", task, common)
    bounds = [
        Bound(_ours_name(method, engine), _ours_name("full", engine), 1.1)
        for engine in RUNTIMES
        for method in ("hash", "qr", "crt")
    ]
    bare = []
    for form, method, at_most in _BARE_FORMS:
        bare.append(Case(f"tf_keras, {form}", "tf_keras", task, {**common, "method": form}))
        bounds.append(Bound(_ours_name(method, "tf_keras"), bare[-1].name, at_most))
    if task == "step" and any(case.engine == "fbgemm" for case in cases):
        bounds += [Bound(_ours_name("full", engine), "FBGEMM TBE", 1.2) for engine in RUNTIMES]
    return Group(name, [*cases, *bare, limit], _ours_name("full", "tf_keras"), limit.name, bounds)


def _bounds_over_peers(peers: list[Case], at_most: float) -> list[Bound]:
    return [
        Bound(_ours_name("full", engine), case.name, at_most)
        for engine in RUNTIMES
        for case in peers
        if case.engine != "keras-rs"
    ]
