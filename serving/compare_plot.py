"""A comparison's plot: memory against theory, and the latencies of both protocols."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_compemb.serving.compare_report import NOISE_BYTES, PROTOCOLS, latency_kinds
from tf_compemb.training.run_directory import replacing


def plot(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws memory, as far as it was measured, and the latencies.

    Args:
        rows: Of `summary`.
        path: The PNG to write.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    protocols = list(dict.fromkeys(protocol for protocol, _ in latency_kinds(rows)))
    draw_memory = _memory_drawing(rows)
    count = len(protocols) + (draw_memory is not None)
    figure = Figure(figsize=(5.2 * count, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = list(figure.subplots(1, count, squeeze=False)[0])
    if draw_memory is not None:
        draw_memory(panels.pop(0), rows)
    for axes, protocol in zip(panels, protocols, strict=True):
        _draw_latency(axes, rows, protocol)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize="small")
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def _memory_drawing(rows: Sequence[dict[str, Any]]) -> Any:
    """What can be drawn of the memory: tables against theory, else the servers'; None: nothing."""
    if any(_has_tables(row) for row in rows):
        return _draw_tables
    if any(row["rss_anon_over_empty_bytes"] is not None for row in rows):
        return _draw_servers
    return None


def _has_tables(row: dict[str, Any]) -> bool:
    return row["tables_rss_anon_bytes"] is not None and (row["tables_theoretical_bytes"] or 0) > 0


def _draw_servers(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Bars, for models whose tables have no theory to be held against, or are too small."""
    for index, row in enumerate(rows):
        over = row["rss_anon_over_empty_bytes"]
        if over is not None:
            spread = (row["rss_anon_spread_bytes"] or 0) / 1e6
            axes.bar(index, over / 1e6, yerr=spread, color=f"C{index % 10}")
        if row["theoretical_bytes"] is not None:
            axes.plot(index, row["theoretical_bytes"] / 1e6, marker="_", markersize=24, color="0")
    axes.set_xticks([])  # The legend has the names, however long.
    axes.set_ylabel("RssAnon over empty (MB)")
    axes.set_title("Memory of the server; line: weights in theory", fontsize="medium")
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)


def _draw_tables(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    known = []
    for index, row in enumerate(rows):
        if not _has_tables(row):
            continue
        theory, tables = row["tables_theoretical_bytes"], row["tables_rss_anon_bytes"]
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
    width, fastest = 0.8 / len(rows), math.inf
    for index, row in enumerate(rows):
        places, medians, tails = [], [], []
        for place, batch in enumerate(batches):
            prefix = f"{protocol}_{batch}"
            if f"{prefix}_p50_ms" in row:
                places.append(place + (index - (len(rows) - 1) / 2) * width)
                medians.append(row[f"{prefix}_p50_ms"])
                tails.append(row[f"{prefix}_p99_ms"] - row[f"{prefix}_p50_ms"])
        fastest = min([fastest, *medians])
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
    axes.set_ylim(bottom=10 ** math.floor(math.log10(0.9 * fastest)))
    _label_logarithms(axes.yaxis)
    axes.set_xticks(range(len(batches)), [str(batch) for batch in batches])
    axes.set_xlim(-0.5, len(batches) - 0.5)
    axes.set_xlabel("rows of a request")
    axes.set_ylabel("milliseconds (logarithmic)")
    axes.set_title(f"{PROTOCOLS[protocol]}: p50, whisker to p99", fontsize="medium")
    axes.grid(alpha=0.3, axis="y")
    axes.set_axisbelow(True)
