"""`tf-compemb serving compare`: memory, latency and outputs of models side by side."""

from __future__ import annotations

import argparse
import contextlib
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tf_compemb.missing_packages import require
from tf_compemb.serving.compare_models import EMPTY, cardinalities, model_card, parse_models
from tf_compemb.training.errors import UserError
from tf_compemb.training.option_types import natural_number, positive_integer, positive_integers
from tf_compemb.training.run_directory import check_writable, write_csv, write_json

_BATCHES = "1,64,1024"


def add_compare(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers; its function is in `run`."""
    parser = commands.add_parser(
        "compare",
        help="memory, load time, latency and outputs of several models",
        description=(
            "Serve each model in fresh local processes, or address servers that run, and report "
            "memory beside theory, load time, latency, throughput, and how far outputs agree."
        ),
        epilog=(
            "A running server is NAME=grpc://HOST:PORT,http://HOST:PORT, one of the two or both, "
            "with a directory after another comma for the model's sizes. Its memory is read where "
            "--pid tells its process on this machine, and its GPU's memory if nvidia-ml-py is "
            "installed; a running server called empty, with the model of the command `empty`, is "
            "what the others' memory is compared with."
        ),
    )
    parser.set_defaults(run=run_compare)
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="an exported model's directory, NAME=DIRECTORY, or NAME=ADDRESS; the first one is "
        "what the others are compared with",
    )
    parser.add_argument(
        "--data",
        metavar="FILE",
        help="Criteo lines to send as they are (default: equally likely ids)",
    )
    parser.add_argument(
        "--pid",
        action="append",
        default=[],
        metavar="NAME=PID",
        help="process of a running server, to read its memory; may be repeated",
    )
    parser.add_argument(
        "--repeats",
        type=positive_integer,
        default=5,
        metavar="N",
        help="fresh processes a model, and rounds of calls (default: 5)",
    )
    parser.add_argument(
        "--calls",
        type=positive_integer,
        default=100,
        metavar="N",
        help="calls of one kind to a model in a round (default: 100)",
    )
    parser.add_argument(
        "--batches",
        type=positive_integers,
        default=_BATCHES,
        metavar="N,...",
        help=f"rows of a request (default: {_BATCHES})",
    )
    parser.add_argument(
        "--onednn",
        action="store_true",
        help="leave oneDNN on in local servers; its allocator rounds tables up (default: off, so "
        "that memory is the tables')",
    )
    parser.add_argument("--seed", type=natural_number, default=0, help="of drawn ids (default: 0)")
    parser.add_argument(
        "--out",
        default="comparison",
        metavar="DIR",
        help="folder for comparison.json, .csv and .png (default: comparison)",
    )


def add_empty(commands: Any) -> None:
    """Adds the sub-command `empty` to argparse's sub-parsers."""
    parser = commands.add_parser(
        "empty",
        help="write the model without tables that memory is compared with",
        description=(
            "Write DIR/empty/VERSION, a SavedModel without tables: the memory of a server with it "
            "is what the server itself needs."
        ),
    )
    parser.set_defaults(run=run_empty)
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder of all models")


def run_empty(options: argparse.Namespace) -> int:
    """Runs the sub-command `empty`.

    Returns:
        The exit status, 0.

    Raises:
        UserError: The folder cannot be written.
    """
    out = Path(options.out)
    check_writable(out)
    from tf_compemb.serving.empty_model import write_empty_model

    print(write_empty_model(out / "empty"))
    return 0


def run_compare(options: argparse.Namespace) -> int:
    """Runs the sub-command `compare`.

    Returns:
        The exit status, 0.

    Raises:
        UserError: What was given cannot be compared, or written to.
        DataError: The file of lines cannot be read.
        ServingError: A server refused, or cannot be reached.
        MeasurementError: A process's memory cannot be read.
    """
    models = parse_models(options.models, options.pid)
    if all(model.name == EMPTY and model.is_running for model in models):
        raise UserError("Name a model to compare with the empty one.")
    out = Path(options.out)
    check_writable(out)
    _check_packages()
    started = time.strftime("%Y-%m-%dT%H:%M:%S%z")
    from tf_compemb.serving.compare import Settings, compare
    from tf_compemb.serving.compare_inputs import Rows, drawn_rows, real_rows
    from tf_compemb.serving.compare_machine import describe_machine
    from tf_compemb.serving.compare_notes import notes
    from tf_compemb.serving.compare_plot import plot
    from tf_compemb.serving.compare_progress import ShownProgress
    from tf_compemb.serving.compare_report import print_report, summary

    batches = tuple(options.batches)
    rows: Rows
    if options.data:
        rows = real_rows(options.data, batches[-1])
    else:
        unknown = [m.name for m in models if m.directory is None and m.name != EMPTY]
        if unknown:
            raise UserError(
                f"Which ids {', '.join(unknown)} takes is not known: add --data FILE with Criteo "
                "lines, or the directory it was exported to: NAME=ADDRESS,DIRECTORY."
            )
        sizes = [cardinalities(model_card(m.directory)) for m in models if m.directory]
        rows = drawn_rows(sizes, batches[-1], options.seed)
    settings = Settings(options.repeats, options.calls, batches, options.onednn, options.seed)
    with _sigterm_as_ctrl_c(), ShownProgress() as progress:
        found = compare(models, rows, settings, progress)
    summarized = summary(found)
    out.mkdir(parents=True, exist_ok=True)
    about = {
        "command": options.command,
        "started": started,
        "rows": rows.origin,
        "signature": rows.signature,
        "settings": vars(settings),
        "machine": describe_machine(),
    }
    write_json(out / "comparison.json", {**about, **found, "summary": summarized})
    columns = list(dict.fromkeys(name for row in summarized for name in row))
    cells = [[row.get(name) for name in columns] for row in summarized]
    write_csv(out / "comparison.csv", columns, cells)
    plot(summarized, out / "comparison.png")
    print_report(summarized, notes(about, found), out)
    return 0


@contextlib.contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Whatever ends the comparison, its servers end with it."""
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _check_packages() -> None:
    """Tells before anything is measured what is missing."""
    needed = ("rich", "matplotlib", "tensorflow_serving")
    require("A comparison", needed, "train,serving")
