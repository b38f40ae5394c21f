"""Tables and plots of runs."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from tf_compemb._program import counted
from tf_compemb.training.run_directory import RunDirectory, replacing

# Methods beyond the colours of Matplotlib's cycle get another marker.
_COLORS = 10
_MARKERS = "osD^v"

UNDEFINED = "undefined"
WHY_UNDEFINED = "undefined: an AUC takes rows with a click and rows without, a loss takes any row."


def megabytes(number: float) -> str:
    """Bytes as MB (10^6 bytes), or kB under one.

    >>> megabytes(17_039_360), megabytes(12_300)
    ('17.0 MB', '12.3 kB')
    """
    return f"{number / 1e6:,.1f} MB" if number >= 1e6 else f"{number / 1e3:,.1f} kB"


def print_metrics(metrics: dict[str, Any], out: Path) -> None:
    """Prints the table at the end of a run."""
    table = Table(title=_title(f"{metrics['model']}, {metrics['embedding']}", metrics["synthetic"]))
    for column in ("", "loss", "AUC", "accuracy"):
        table.add_column(column, justify="left" if not column else "right")
    for split in ("validation", "test"):
        found = [metrics[f"{split}_{name}"] for name in ("loss", "auc", "accuracy")]
        table.add_row(split, *map(_number, found))
    if "best_achievable_loss" in metrics:
        best = [metrics[f"best_achievable_{name}"] for name in ("loss", "auc")]
        table.add_row("test, best achievable", *map(_number, best), "")
    console = _console()
    console.print(table)
    if UNDEFINED in (_number(metrics[f"{split}_auc"]) for split in ("validation", "test")):
        console.print(WHY_UNDEFINED, highlight=False, soft_wrap=True)
    rate = metrics["examples_per_second"]
    speed = "" if rate is None else f", {rate:,.0f} examples/s"
    console.print(
        f"{metrics['parameters']:,} parameters, {metrics['embedding_parameters']:,} of them in "
        f"embeddings ({megabytes(metrics['embedding_bytes'])}){speed}, peak memory "
        f"{megabytes(metrics['peak_rss_bytes'])}\nrun directory: {out}",
        highlight=False,
        soft_wrap=True,
    )


def print_profile(run: RunDirectory) -> None:
    """Prints where the time of the traced steps went."""
    path = run.profile / "summary.json"
    if not path.exists():
        print("no profile: the run has too few steps after the first ones", file=sys.stderr)
        return
    found = json.loads(path.read_text())
    threads = found["thread_milliseconds"]
    total = sum(threads.values())
    table = Table(
        title=f"a step of {found['step_milliseconds']:.1f} ms, mean of {found['steps']} steps"
    )
    table.add_column("operations of the CPU's threads")
    table.add_column("ms", justify="right")
    table.add_column("share", justify="right")
    for part, spent in threads.items():
        table.add_row(part, f"{spent:.2f}", f"{spent / total:.1%}")
    table.add_section()
    table.add_row("sum over threads, which run side by side", f"{total:.2f}", "")
    _console().print(table)
    print(f"trace: tensorboard --logdir {run.profile} (with tensorboard-plugin-profile)")


def _console() -> Console:
    """The terminal, or where there is none a page wide enough for a table."""
    return Console() if sys.stdout.isatty() else Console(width=110)


def _title(what: str, synthetic: bool) -> str:
    return f"{what} (synthetic data)" if synthetic else what


def plot_loss(rows: Sequence[Sequence[Any]], synthetic: bool, path: Path) -> None:
    """Draws a run's loss over its steps.

    Args:
        rows: Rows of `history.csv`.
        synthetic: Whether the data were generated; the title says so.
        path: The PNG to write.
    """
    steps = [int(row[0]) for row in rows]
    train = [float(row[2]) for row in rows]
    validated = [(int(row[0]), float(row[3])) for row in rows if row[3] not in (None, "")]
    with _figure(path) as axes:
        (line,) = axes.plot(steps, train, "tab:blue", lw=1, label="train, mean of an interval")
        if len(steps) == 1:  # No line goes through one point.
            line.set_marker("o")
        axes.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        if validated:
            axes.plot(*zip(*validated, strict=True), "o-", color="tab:orange", label="validation")
        axes.set_xlabel("step")
        axes.set_ylabel("cross entropy (nats)")
        # The first steps may lie far above all others, and would flatten them.
        settled = train[len(train) // 20 + 1 :] or train
        shown = [*settled, *(loss for _, loss in validated)]
        margin = 0.1 * (max(shown) - min(shown)) or 0.01
        axes.set_ylim(min(shown) - margin, max(shown) + margin)
        axes.set_title(_title("Loss", synthetic))
        axes.grid(alpha=0.3)
        axes.legend()


@contextlib.contextmanager
def _figure(path: Path, width: float = 7) -> Iterator[Any]:
    """Axes of a figure `width` inches wide that is written to `path`; no display is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.2), layout="constrained")
    FigureCanvasAgg(figure)
    yield figure.subplots()
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)


def print_evaluation(metrics: dict[str, Any]) -> None:
    """Prints one line about another file's rows."""
    print(
        f"{metrics['evaluated_file']}, {counted(metrics['evaluated_rows'], 'row')}: "
        f"loss {_number(metrics['test_loss'])}, AUC {_number(metrics['test_auc'])}, "
        f"accuracy {_number(metrics['test_accuracy'])}"
    )


def _number(value: float | None) -> str:
    """A metric, or a word where the rows do not define it."""
    return UNDEFINED if value is None else f"{value:.4f}"


def print_comparison(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Prints one line for each method, the lowest test loss in bold.

    Args:
        rows: Of `comparison.collect`.
        out: Directory of the comparison.
    """
    runs = max(row["runs"] for row in rows)
    what = f"Comparison, mean ± standard deviation of {runs} seeds" if runs > 1 else "Comparison"
    table = Table(title=_title(what, rows[0]["synthetic"]), box=box.SIMPLE_HEAD, pad_edge=False)
    for column in ("method", "test loss", "test AUC", "parameters", "bytes", "examples/s"):
        left = column == "method"
        table.add_column(
            column, justify="left" if left else "right", no_wrap=not left, overflow="fold"
        )
    losses = [row["test_loss"] for row in rows if row["test_loss"] is not None]
    best = min(losses, default=None)
    for row in rows:
        rate = row["examples_per_second"]
        table.add_row(
            row["method"],
            *(_spread(row, key) for key in ("test_loss", "test_auc")),
            f"{row['embedding_parameters']:,}",
            megabytes(row["embedding_bytes"]),
            "" if rate is None else f"{rate:,.0f}",
            style="bold" if losses and row["test_loss"] == best else None,
        )
    console = _console()
    console.print(table)
    console.print(
        f"parameters and bytes are the embeddings'\nruns and comparison: {out}",
        highlight=False,
        soft_wrap=True,
    )


def _spread(row: dict[str, Any], key: str) -> str:
    deviation = row.get(f"{key}_std")
    return _number(row[key]) + ("" if deviation is None else f" ± {deviation:.4f}")


def plot_comparison(rows: Sequence[dict[str, Any]], path: Path) -> None:
    """Draws each method's test loss against the bytes of its embeddings.

    Args:
        rows: Of `comparison.collect`.
        path: The PNG to write.
    """
    from matplotlib.ticker import LogLocator

    with _figure(path, width=9.5) as axes:
        for i, row in enumerate(rows):
            if row["test_loss"] is None:
                continue
            axes.errorbar(
                row["embedding_bytes"] / 1e6,
                row["test_loss"],
                yerr=row.get("test_loss_std"),
                fmt=_MARKERS[i // _COLORS % len(_MARKERS)],
                color=f"C{i % _COLORS}",
                capsize=3,
                label=row["method"],
            )
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter("{x:g}")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("bytes of the embeddings (MB, logarithmic)")
        axes.set_ylabel("test cross entropy (nats)")
        axes.set_title(_title("Quality against size", rows[0]["synthetic"]))
        axes.grid(alpha=0.3)
        # Beside the axes, where it hides no point.
        axes.legend(fontsize="small", loc="center left", bbox_to_anchor=(1, 0.5))
