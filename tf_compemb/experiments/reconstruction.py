"""`tf-compemb reconstruction RUN`: how well methods keep a trained table.

Every method that can start from a table is given the largest table of a run with full tables, at
falling numbers of bytes. No training follows: the error says what a conversion alone loses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_compemb._program import Parser
from tf_compemb.missing_packages import reports_missing_packages
from tf_compemb.training.errors import UserError

COLUMNS = ("method", "compression", "rank", "served_bytes", "relative_error")
DIVISORS = (1.5, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
_USER_ERROR = 2


@reports_missing_packages("train")
def main(argv: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The exit status: 0, or 2 for a mistake in what was given.
    """
    parser = Parser(prog="tf-compemb reconstruction")
    add_options(parser)
    options = parser.parse_args(argv)
    try:
        _run(options)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return _USER_ERROR
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the program's description and options to a parser of its own."""
    parser.description = "How near each method that can start from a trained table comes to it."
    parser.add_argument("run", metavar="RUN", help="a finished run of --embedding full")
    parser.add_argument(
        "--field", metavar="NAME", help="C1 to C26 (default: the one with the most ids)"
    )
    parser.add_argument(
        "--out", metavar="DIR", default="reconstruction", help="(default: %(default)s)"
    )


def _run(options: argparse.Namespace) -> None:
    from tf_compemb.training.data_source import data_of_run
    from tf_compemb.training.environment import prepare_tensorflow
    from tf_compemb.training.run_directory import RunDirectory, check_writable, write_csv

    out = Path(options.out)
    check_writable(out)
    run = RunDirectory(options.run)
    field = _field_of(run, options.field)
    frequencies = data_of_run(run).frequencies(field)
    prepare_tensorflow()
    table = _table_of(run, field)
    rows = sorted(reconstructions(table, frequencies), key=lambda row: (row[0], -row[3]))
    out.mkdir(parents=True, exist_ok=True)
    write_csv(out / "reconstruction.csv", COLUMNS, rows)
    synthetic = bool(run.read_single_config()["data"]["synthetic"])
    title = f"{field}, {table.shape[0]:,} ids{', synthetic data' if synthetic else ''}"
    _print(title, rows)
    _plot(title, rows, out)
    print(f"written to {out}")


def _field_of(run: Any, field: str | None) -> str:
    """The field that is asked for, or the one with the most ids, of a finished run of `full`."""
    config = run.read_single_config()
    run.finished_model()
    (method,) = config["options"]["embedding"]
    if method != "full":
        raise UserError(f"{run.path} is a run of {method}; give one of --embedding full.")
    sizes = {f"C{i}": n for i, n in enumerate(config["data"]["cardinalities"], start=1)}
    field = field or max(sizes, key=sizes.__getitem__)
    if field not in sizes:
        raise UserError(f"--field {field} is not in the run; it has {', '.join(sizes)}.")
    return field


def _table_of(run: Any, field: str) -> Any:
    """A field's trained table."""
    import numpy as np

    from tf_compemb.training.saved_runs import load_run

    collection = load_run(run.path).embeddings
    return collection.field_vectors(field, np.arange(collection.cardinalities[field])).numpy()


def reconstructions(table: Any, frequencies: Any) -> Iterator[tuple[Any, ...]]:
    """A row of `COLUMNS` for each method and size.

    Args:
        table: Float32 array (ids, width).
        frequencies: Of the ids, for methods that treat frequent ones better.

    Yields:
        `compression` is the table's bytes over the served ones, `relative_error` the Frobenius norm
        of the difference over the table's; `rank` is None for methods without one.
    """
    from tf_compemb.layers import method_names
    from tf_compemb.layers.base import CompressedEmbedding
    from tf_compemb.layers.registry import get_method

    for name in method_names():
        method: Any = get_method(name)
        if method.start_from is CompressedEmbedding.start_from or name == "full":
            continue
        known = {"frequencies": frequencies} if method.needs_frequencies else {}
        met = set()
        for divisor in DIVISORS:
            try:
                arguments = method.for_budget(*table.shape, int(table.nbytes / divisor))
                layer = method.from_table(table, **arguments, **known)
            except ValueError:  # It cannot be so small, or not so small and start from a table.
                break
            size = layer.for_inference().footprint().inference_bytes
            if size not in met:
                met.add(size)
                yield name, table.nbytes / size, arguments.get("rank"), size, _error(layer, table)


def _error(layer: Any, table: Any) -> float:
    import numpy as np

    found = layer(np.arange(len(table))).numpy()
    return float(np.linalg.norm(found - table) / np.linalg.norm(table))


def _print(title: str, rows: list[tuple[Any, ...]]) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=f"Relative error of the table {title}", box=None)
    for column in COLUMNS:
        shown.add_column(
            column.replace("_", " "), justify="left" if column == "method" else "right"
        )
    for name, compression, rank, size, error in rows:
        shown.add_row(
            name,
            f"{compression:.1f}",
            "" if rank is None else str(rank),
            f"{size:,}",
            f"{error:.4f}",
        )
    Console().print(shown)


def _plot(title: str, rows: list[tuple[Any, ...]], out: Path) -> None:
    from tf_compemb.experiments.plots import MARKERS, empty_canvas, save_canvas

    with empty_canvas() as canvas:
        axes = canvas.subplots()
        names = sorted({row[0] for row in rows})
        for i, name in enumerate(names):
            points = [(row[1], row[4]) for row in rows if row[0] == name]
            axes.plot(*zip(*points, strict=True), marker=MARKERS[i % len(MARKERS)], label=name)
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter("{x:g}")
        axes.set_xlabel("times smaller than the table (logarithmic)")
        axes.set_ylabel("error over the table's norm")
        axes.grid(alpha=0.3)
        axes.legend(loc="center left", bbox_to_anchor=(1.01, 0.5), fontsize="small")
        canvas.suptitle(f"Starting from a trained table: {title}", fontsize="medium")
        save_canvas(canvas, out / "reconstruction")


if __name__ == "__main__":
    sys.exit(main())
