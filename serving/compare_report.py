"""A comparison's tables, CSV and plot, from what `compare` measured."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_compemb.serving.memory import GPU_NOTE
from tf_compemb.training.report import megabytes
from tf_compemb.training.run_directory import replacing

# Threads and allocator arenas of a server vary by as much, whatever the model.
NOISE_BYTES = 2_000_000
# From here on the noise is small beside the tables, and a ratio means something.
RATIO_BYTES = 16_000_000


def summary(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One flat row for each model: medians over the repeats, and the spread of its memory.

    Args:
        found: Of `tf_compemb.serving.compare.compare`.

    Returns:
        Rows with the same keys in the same order; None where something was not measured.
    """
    return [_summary_row(model, found["empty"], found["models"][0]) for model in found["models"]]


def _summary_row(
    model: dict[str, Any], empty: dict[str, Any] | None, first: dict[str, Any]
) -> dict[str, Any]:
    theory, over = _weights(model), over_empty(model, empty)
    cut: dict[str, Any] = model.get("cut") or {"theoretical_bytes": None, "memory": None}
    row: dict[str, Any] = {
        "model": model["name"],
        "theoretical_bytes": theory,
        "saved_model_bytes": model["saved_model_bytes"],
        "vocabulary_bytes": (model["theoretical_bytes"] or {}).get("vocabulary"),
        "rss_anon_over_empty_bytes": over,
        "rss_anon_spread_bytes": _spread(_memory(model, "anonymous_bytes")),
        "tables_theoretical_bytes": _difference(theory, _weights(cut)),
        "tables_rss_anon_bytes": _over(model, cut["memory"], "anonymous_bytes"),
        "theoretical_difference_to_first_bytes": _difference(theory, _weights(first)),
        "rss_anon_difference_to_first_bytes": _difference(over, over_empty(first, empty)),
        "rss_anon_after_calls_bytes": _median(_memory(model, "anonymous_bytes_after_calls")),
        "peak_rss_bytes": _median(_memory(model, "peak_bytes")),
        "gpu_bytes": _median(_memory(model, "gpu_bytes")),
        "start_seconds": _median(_memory(model, "start_seconds")),
        "load_seconds": _over(model, empty, "start_seconds"),
    }
    for latency in model["latency"]:
        prefix = f"{latency['protocol']}_{latency['batch']}"
        for name in ("p50_ms", "p99_ms", "rows_per_second"):
            row[f"{prefix}_{name}"] = statistics.median(latency[name])
    row.update(model["agreement"])
    return row


def over_empty(model: dict[str, Any], empty: dict[str, Any] | None) -> float | None:
    """Median `RssAnon` of a model's servers, less that of the servers of the empty model."""
    return _over(model, empty, "anonymous_bytes")


def against_theory(theory: float | None, measured: float | None) -> str:
    """How measured memory compares with the bytes of the tables, as far as that means anything.

    >>> against_theory(640_000_000, 643_200_000), against_theory(130_000, 900_000)
    ('+0.5 %', 'below 2 MB')
    """
    if theory is None or measured is None:
        return ""
    if theory >= RATIO_BYTES:
        return f"{100 * (measured / theory - 1):+.1f} %"
    return "below 2 MB" if theory < NOISE_BYTES and measured < NOISE_BYTES else ""


def notes(about: dict[str, Any], found: dict[str, Any]) -> list[str]:
    """What a reader has to know about the numbers, a sentence each.

    Args:
        about: `settings`, `rows` and `machine` of the comparison.
        found: Of `tf_compemb.serving.compare.compare`.
    """
    settings, machine = about["settings"], about["machine"]
    said = [
        f"medians of {settings['repeats']} repeats of {settings['calls']} calls on one connection, "
        f"with {about['rows']}; {machine['processor']}, {machine['cores']} cores, load average "
        f"{machine['load_average'][0]:.1f} at the end",
    ]
    if found["empty"]:
        said.append(
            "weights: tables and network in theory; RssAnon over empty: anonymous memory of a "
            "fresh local server, less that of the same server with a model that does nothing "
            f"({megabytes(statistics.median(found['empty']['anonymous_bytes']))}), ± half the "
            f"range; oneDNN {'on' if settings['onednn'] else 'off'}"
        )
        said.append(
            "of it tables: the same less that of the same model with fields cut to about 2,000 "
            "ids, which has the same graph and network; in theory: the weights' difference; "
            f"below {megabytes(RATIO_BYTES)} the heap's layout can make up most of it, so it has "
            "no ratio"
        )
    vocabularies = [(m["theoretical_bytes"] or {}).get("vocabulary") for m in found["models"]]
    if any(vocabularies):
        said.append(
            "* with the lookup tables of the raw signature's vocabulary, "
            f"{megabytes(max(size or 0 for size in vocabularies))} of text here, which are in no "
            "theory; an export with --no-raw is without them"
        )
    if any((model["card"] or {}).get("trained") is False for model in found["models"]):
        said.append("untrained models have nothing in common: their outputs tell nothing here")
    if any((model["memory"] or {}).get("gpu_bytes") for model in found["models"]):
        said.append(GPU_NOTE)
    return said


def print_report(rows: Sequence[dict[str, Any]], notes: Sequence[str], out: Path) -> None:
    """Prints three tables: memory, latency, agreement of the outputs.

    Args:
        rows: Of `summary`.
        notes: Sentences that are printed below.
        out: Where the files are.
    """
    from rich.console import Console

    console = Console() if sys.stdout.isatty() else Console(width=120)
    for table in (_memory_table(rows), _latency_table(rows), _agreement_table(rows)):
        console.print(table)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"files: {out}", highlight=False, soft_wrap=True)


def _memory_table(rows: Sequence[dict[str, Any]]) -> Any:
    table = _table("Memory", "model")
    columns = ["weights", "SavedModel", "RssAnon over empty", "of it tables", "in theory"]
    columns += ["difference", "peak RSS", "load"]
    gpu = any(row["gpu_bytes"] is not None for row in rows)
    for column in [*columns, *(["on GPU"] if gpu else [])]:
        table.add_column(column, justify="right")
    for row in rows:
        over, spread = row["rss_anon_over_empty_bytes"], row["rss_anon_spread_bytes"]
        tables, theory = row["tables_rss_anon_bytes"], row["tables_theoretical_bytes"]
        cells = [
            row["model"],
            _bytes(row["theoretical_bytes"]),
            _bytes(row["saved_model_bytes"]),
            _bytes(over) + ("" if spread is None or over is None else f" ± {spread / 1e6:.1f}"),
            _bytes(tables) + (" *" if row["vocabulary_bytes"] else ""),
            _bytes(theory),
            "" if row["vocabulary_bytes"] else against_theory(theory, tables),
            _bytes(row["peak_rss_bytes"]),
            "" if row["load_seconds"] is None else f"{row['load_seconds']:.1f} s",
        ]
        table.add_row(*cells, *([_bytes(row["gpu_bytes"])] if gpu else []))
    return table


def _latency_table(rows: Sequence[dict[str, Any]]) -> Any:
    table = _table("Latency, p50 / p99 in ms, and rows a second", "model")
    kinds = latency_kinds(rows)
    for protocol, batch in kinds:
        table.add_column(f"{_PROTOCOLS[protocol]}, {batch} rows", justify="right")
    for row in rows:
        cells = []
        for protocol, batch in kinds:
            prefix = f"{protocol}_{batch}"
            if f"{prefix}_p50_ms" not in row:
                cells.append("")
                continue
            p50, p99 = row[f"{prefix}_p50_ms"], row[f"{prefix}_p99_ms"]
            cells.append(f"{p50:.2f} / {p99:.2f}\n{row[f'{prefix}_rows_per_second']:,.0f}/s")
        table.add_row(row["model"], *cells)
    return table


def _agreement_table(rows: Sequence[dict[str, Any]]) -> Any:
    table = _table(f"Outputs, against those of {rows[0]['model']}", "model")
    columns = ["same weights", "largest |difference|", "mean |difference|", "correlation of logits"]
    for column in [*columns, "gRPC against REST"]:
        table.add_column(column, justify="right")
    for row in rows[1:] or rows:
        correlation, protocols = row["logit_correlation"], row["largest_difference_grpc_rest"]
        table.add_row(
            row["model"],
            "yes" if row["same_weights"] else "no",
            f"{row['max_difference']:.2g}",
            f"{row['mean_difference']:.2g}",
            "" if correlation is None else f"{correlation:.4f}",
            "" if protocols is None else f"{protocols:.2g}",
        )
    return table


_PROTOCOLS = {"grpc": "gRPC", "rest": "REST"}


def latency_kinds(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Protocol and batch of every latency in the rows, in their order."""
    names = [name for row in rows for name in row if name.endswith("_p50_ms")]
    pairs = [name.removesuffix("_p50_ms").split("_") for name in dict.fromkeys(names)]
    return [(protocol, int(batch)) for protocol, batch in pairs]


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws memory against theory, and the latencies of both protocols.

    Args:
        rows: Of `summary`.
        path: The PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    protocols = list(dict.fromkeys(protocol for protocol, _ in latency_kinds(rows)))
    figure = Figure(figsize=(5.2 * (1 + len(protocols)), 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    memory, *latencies = figure.subplots(1, 1 + len(protocols), squeeze=False)[0]
    _draw_memory(memory, rows)
    for axes, protocol in zip(latencies, protocols, strict=True):
        _draw_latency(axes, rows, protocol)
    handles, labels = latencies[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _draw_memory(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    known = []
    for index, row in enumerate(rows):
        theory, tables = row["tables_theoretical_bytes"], row["tables_rss_anon_bytes"]
        if theory is None or tables is None or theory <= 0:
            continue
        # A logarithm has no room for a difference that is nothing, or noise below nothing.
        shown = max(tables, 1e5) / 1e6
        known += [theory / 1e6, shown]
        axes.errorbar(
            theory / 1e6,
            shown,
            yerr=(row["rss_anon_spread_bytes"] or 0) / 1e6,
            # Models of one size lie on one another: each has another outline.
            fmt="os^Dv<>ph8"[index % 10],
            markersize=7 + index % 3 * 2,
            fillstyle="none",
            color=f"C{index % 10}",
        )
    if known:
        ends = [min(known) / 1.5, max(known) * 1.5]
        axes.plot(ends, ends, color="0.6", linewidth=1, zorder=0)
        axes.axhspan(ends[0], NOISE_BYTES / 1e6, color="0.93", zorder=-1)
        axes.set_xlim(*ends)
        axes.set_ylim(*ends)
    axes.set_xscale("log")
    axes.set_yscale("log")
    _label_logarithms(axes.xaxis, axes.yaxis)
    axes.set_xlabel("tables beyond 2,000 ids a field, in theory (MB)")
    more = ", with vocabularies" if any(row["vocabulary_bytes"] for row in rows) else ""
    axes.set_ylabel(f"measured as RssAnon{more} (MB)")
    axes.set_title("Memory: line: equal; grey: within the noise", fontsize="medium")
    axes.grid(alpha=0.3)


def _label_logarithms(*all_axes: Any) -> None:
    from matplotlib.ticker import LogLocator

    for axis in all_axes:
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter("")


def _draw_latency(axes: Any, rows: Sequence[dict[str, Any]], protocol: str) -> None:
    batches = [batch for kind, batch in latency_kinds(rows) if kind == protocol]
    width = 0.8 / len(rows)
    for index, row in enumerate(rows):
        places, medians, tails = [], [], []
        for place, batch in enumerate(batches):
            prefix = f"{protocol}_{batch}"
            if f"{prefix}_p50_ms" in row:
                places.append(place + (index - (len(rows) - 1) / 2) * width)
                medians.append(row[f"{prefix}_p50_ms"])
                tails.append(row[f"{prefix}_p99_ms"] - row[f"{prefix}_p50_ms"])
        axes.bar(
            places,
            medians,
            width,
            yerr=[[0] * len(tails), tails],
            color=f"C{index % 10}",
            hatch=("", "//", "xx")[index // 10 % 3],
            error_kw={"elinewidth": 0.8, "ecolor": "0.3"},
            label=row["model"],
        )
    axes.set_yscale("log")
    _label_logarithms(axes.yaxis)
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_xlabel("rows of a request")
    axes.set_ylabel("milliseconds (logarithmic)")
    axes.set_title(f"{_PROTOCOLS[protocol]}: p50, whisker to p99", fontsize="medium")
    axes.grid(alpha=0.3, axis="y")


def _table(title: str, first: str) -> Any:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column(first, overflow="fold")
    return table


def _memory(model: dict[str, Any], name: str) -> list[float] | None:
    return (model["memory"] or {}).get(name)


def _over(model: dict[str, Any], empty: dict[str, Any] | None, name: str) -> float | None:
    values = _memory(model, name)
    if not values or not empty:
        return None
    return statistics.median(values) - statistics.median(empty[name])


def _difference(number: float | None, other: float | None) -> float | None:
    return None if number is None or other is None else number - other


def _weights(model: dict[str, Any]) -> float | None:
    return (model["theoretical_bytes"] or {}).get("weights")


def _median(values: list[float] | None) -> float | None:
    return statistics.median(values) if values else None


def _spread(values: list[float] | None) -> float | None:
    """Half the distance between the largest and the smallest; None of a single one."""
    return (max(values) - min(values)) / 2 if values and len(values) > 1 else None


def _bytes(number: float | None) -> str:
    if number is None:
        return ""
    return megabytes(number) if number >= 0 else f"-{megabytes(-number)}"
