"""A comparison's tables, from what `compare` measured."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tf_compemb._program import counted
from tf_compemb.training.report import megabytes

# Threads and allocator arenas of a server vary by as much, whatever the model.
NOISE_BYTES = 2_000_000
# From here on the noise is small beside the tables, and a ratio means something.
RATIO_BYTES = 16_000_000
_UNKNOWN = "–"  # noqa: RUF001 - a dash in a table's cell.


def summary(found: dict[str, Any]) -> list[dict[str, Any]]:
    """One flat row for each model: medians over the repeats, and the spread of its memory.

    Args:
        found: Of `tf_compemb.serving.compare.compare`.

    Returns:
        Rows with the same keys in the same order; None where something was not measured.
    """
    return [_summary_row(model, found["models"][0], found) for model in found["models"]]


def _summary_row(
    model: dict[str, Any], first: dict[str, Any], found: dict[str, Any]
) -> dict[str, Any]:
    theory, over = _weights(model), over_empty(model, found)
    cut: dict[str, Any] = model.get("cut") or {"theoretical_bytes": None, "memory": None}
    row: dict[str, Any] = {
        "model": model["name"],
        "theoretical_bytes": theory,
        "saved_model_bytes": model["saved_model_bytes"],
        "vocabulary_bytes": (model["theoretical_bytes"] or {}).get("vocabulary"),
        "rss_anon_bytes": _median(_memory(model, "anonymous_bytes")),
        "rss_anon_over_empty_bytes": over,
        "rss_anon_spread_bytes": _spread(_memory(model, "anonymous_bytes")),
        "tables_theoretical_bytes": _difference(theory, _weights(cut)),
        "tables_rss_anon_bytes": _over(model, cut["memory"], "anonymous_bytes"),
        "theoretical_difference_to_first_bytes": _difference(theory, _weights(first)),
        "rss_anon_difference_to_first_bytes": _difference(over, over_empty(first, found)),
        "rss_anon_after_calls_bytes": _median(_memory(model, "anonymous_bytes_after_calls")),
        "peak_rss_bytes": _median(_memory(model, "peak_bytes")),
        "gpu_bytes": _median(_memory(model, "gpu_bytes")),
        "start_seconds": _median(_memory(model, "start_seconds")),
        "load_seconds": _over(model, found["empty"], "start_seconds"),
    }
    for latency in model["latency"]:
        prefix = f"{latency['protocol']}_{latency['batch']}"
        for name in ("p50_ms", "p99_ms", "rows_per_second"):
            row[f"{prefix}_{name}"] = statistics.median(latency[name])
    row.update(model["agreement"])
    return row


def over_empty(model: dict[str, Any], found: dict[str, Any]) -> float | None:
    """Median `RssAnon` of a model's servers, less that of servers of the empty model.

    Of a local server, that of the local ones; of a running one, that of the running one.
    """
    empty = found["running_empty" if model["running"] else "empty"]
    return _over(model, empty, "anonymous_bytes")


def against_theory(theory: float | None, measured: float | None) -> str:
    """How measured memory compares with the bytes of the tables, as far as that means anything.

    >>> against_theory(640_000_000, 643_200_000), against_theory(130_000, 900_000)
    ('+0.5 %', 'below 2 MB')
    """
    if theory is None or measured is None:
        return ""
    if theory >= RATIO_BYTES:
        return f"{round(100 * (measured / theory - 1), 1) + 0.0:+.1f} %"  # Never -0.0.
    return "below 2 MB" if theory < NOISE_BYTES and measured < NOISE_BYTES else ""


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
        if table is not None:
            console.print(table)
    for note in notes:
        console.print(note, highlight=False, soft_wrap=True)
    console.print(f"files: {out}", highlight=False, soft_wrap=True)


def _memory_table(rows: Sequence[dict[str, Any]]) -> Any:
    columns: dict[str, list[str]] = {
        "weights": [_bytes(row["theoretical_bytes"]) for row in rows],
        "SavedModel": [_bytes(row["saved_model_bytes"]) for row in rows],
        "RssAnon": [
            _bytes(row["rss_anon_bytes"]) if row["rss_anon_over_empty_bytes"] is None else ""
            for row in rows
        ],
        "RssAnon over empty": [_over_empty_cell(row) for row in rows],
        "of it tables": [_tables_cell(row) for row in rows],
        "in theory": [_bytes(row["tables_theoretical_bytes"]) for row in rows],
        "difference": [
            ""
            if row["vocabulary_bytes"]
            else against_theory(row["tables_theoretical_bytes"], row["tables_rss_anon_bytes"])
            for row in rows
        ],
        "peak RSS": [_bytes(row["peak_rss_bytes"]) for row in rows],
        # A small model loads within the noise of the two starts that this is the difference of.
        "load": [
            "" if row["load_seconds"] is None else f"{max(row['load_seconds'], 0.0):.1f} s"
            for row in rows
        ],
        "on GPU": [_bytes(row["gpu_bytes"]) for row in rows],
    }
    return _table("Memory", rows, columns)


def _over_empty_cell(row: dict[str, Any]) -> str:
    over, spread = row["rss_anon_over_empty_bytes"], row["rss_anon_spread_bytes"]
    if over is None:
        return ""
    starred = row["vocabulary_bytes"] and row["tables_rss_anon_bytes"] is None
    return (
        _bytes(over) + ("" if spread is None else f" ± {spread / 1e6:.1f}") + " *" * bool(starred)
    )


def _tables_cell(row: dict[str, Any]) -> str:
    tables = row["tables_rss_anon_bytes"]
    return "" if tables is None else _bytes(tables) + " *" * bool(row["vocabulary_bytes"])


def _latency_table(rows: Sequence[dict[str, Any]]) -> Any:
    columns = {
        f"{PROTOCOLS[protocol]}, {counted(batch, 'row')}": [
            _latency_cell(row, f"{protocol}_{batch}") for row in rows
        ]
        for protocol, batch in latency_kinds(rows)
    }
    return _table("Latency, p50 / p99 in ms, and rows a second", rows, columns)


def _latency_cell(row: dict[str, Any], prefix: str) -> str:
    if f"{prefix}_p50_ms" not in row:
        return ""
    p50, p99 = row[f"{prefix}_p50_ms"], row[f"{prefix}_p99_ms"]
    return f"{p50:.2f} / {p99:.2f}\n{row[f'{prefix}_rows_per_second']:,.0f}/s"


def _agreement_table(rows: Sequence[dict[str, Any]]) -> Any:
    first, rows = rows[0]["model"], rows[1:] or rows
    names = {
        "correlation of logits": ("logit_correlation", ".4f"),
        "gRPC against REST": ("largest_difference_grpc_rest", ".2g"),
    }
    columns = {
        "same weights": [_SAME_WEIGHTS[row["same_weights"]] for row in rows],
        "largest |difference|": [f"{row['max_difference']:.2g}" for row in rows],
        "mean |difference|": [f"{row['mean_difference']:.2g}" for row in rows],
        **{
            title: ["" if row[name] is None else format(row[name], form) for row in rows]
            for title, (name, form) in names.items()
        },
    }
    return _table(f"Outputs, against those of {first}", rows, columns)


_SAME_WEIGHTS = {True: "yes", False: "no", None: "unknown"}
PROTOCOLS = {"grpc": "gRPC", "rest": "REST"}


def latency_kinds(rows: Sequence[dict[str, Any]]) -> list[tuple[str, int]]:
    """Protocol and batch of every latency in the rows, in their order."""
    names = [name for row in rows for name in row if name.endswith("_p50_ms")]
    pairs = [name.removesuffix("_p50_ms").split("_") for name in dict.fromkeys(names)]
    return [(protocol, int(batch)) for protocol, batch in pairs]


def _table(title: str, rows: Sequence[dict[str, Any]], columns: dict[str, list[str]]) -> Any:
    """A table with a line a model, without the columns that say nothing; None if all are so."""
    from rich import box
    from rich.table import Table

    columns = {name: cells for name, cells in columns.items() if any(cells)}
    if not columns:
        return None
    table = Table(title=title, box=box.SIMPLE_HEAD, pad_edge=False, title_justify="left")
    table.add_column("model", overflow="fold")
    for name in columns:
        table.add_column(name, justify="right")
    for row, *cells in zip(rows, *columns.values(), strict=True):
        table.add_row(row["model"], *(cell or _UNKNOWN for cell in cells))
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
