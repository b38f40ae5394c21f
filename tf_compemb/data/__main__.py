"""`tf-compemb data prepare | generate | describe`."""

from __future__ import annotations

import argparse
import signal
import sys
from typing import TYPE_CHECKING

from tf_compemb._program import Parser, counted
from tf_compemb.missing_packages import reports_missing_packages
from tf_compemb.training.option_types import natural_number, positive_integer, share

if TYPE_CHECKING:
    from tf_compemb.data.prepared_dataset import PreparedDataset

USER_ERROR = 2


@reports_missing_packages("train")
def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: the arguments; None for the process's own.

    Returns:
        The exit status: 0, or 2 when the data, a path or an option is at fault, which one sentence
        on standard error explains.
    """
    parser = Parser(prog="tf-compemb data")
    add_options(parser)
    options = parser.parse_args(argv)
    from tf_compemb.data.errors import DataError

    try:
        options.run(options)
    except DataError as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        again = "; the same command goes on from here" if options.run is _prepare else ""
        print(f"interrupted{again}.", file=sys.stderr)
        return 128 + signal.SIGINT
    return 0


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the program's description and commands to a parser of its own."""
    parser.description = "Criteo-format data: prepare, generate and describe."
    parser.epilog = "`tf-compemb data COMMAND --help` shows a command's options."
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_prepare(
        commands.add_parser(
            "prepare", help="raw files to a prepared data set; goes on where it was killed"
        )
    )
    _add_generate(commands.add_parser("generate", help="a raw file of generated rows"))
    _add_describe(commands.add_parser("describe", help="what a prepared data set holds"))


def _add_prepare(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_prepare)
    parser.add_argument(
        "raw", nargs="+", metavar="RAW", help="raw Criteo files or patterns, in the order of time"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to make")
    parser.add_argument(
        "--encoder",
        choices=("vocabulary", "hash"),
        default="vocabulary",
        help="ids by first sight in training, or by a 64-bit fingerprint (default: vocabulary)",
    )
    parser.add_argument(
        "--min-count",
        type=positive_integer,
        default=1,
        metavar="N",
        help="vocabulary: rows a category needs for an id of its own (default: 1)",
    )
    parser.add_argument(
        "--hash-buckets",
        type=positive_integer,
        metavar="N",
        help="hash: ids of each field (default: 2**20)",
    )
    parser.add_argument(
        "--bad-lines",
        choices=("error", "skip"),
        default="error",
        help="stop at a bad line, or write it to DIR/bad_lines.tsv and go on (default: error)",
    )
    parser.add_argument(
        "--max-bad-share",
        type=share,
        default=0.01,
        metavar="SHARE",
        help="skip: the share of bad lines that is an error (default: 0.01)",
    )
    parser.add_argument(
        "--memory",
        type=positive_integer,
        default=2**30,
        metavar="BYTES",
        help="what the numbering may take; a field beyond it goes through temporary files "
        "(default: 1073741824)",
    )
    parser.add_argument(
        "--runner",
        choices=("local", "beam"),
        default="local",
        help="beam: the same files by an Apache Beam pipeline (default: local)",
    )
    parser.add_argument(
        "--beam-options",
        default="",
        metavar="OPTIONS",
        help="beam: its own options, such as --beam-options=--runner=FlinkRunner; "
        "all workers must see the raw files and DIR at the same paths (default: its DirectRunner)",
    )


def _add_generate(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_generate)
    parser.add_argument("--rows", type=positive_integer, required=True, metavar="N")
    parser.add_argument(
        "--out", required=True, metavar="FILE", help="the file to make; gzip if it ends in .gz"
    )
    parser.add_argument("--seed", type=natural_number, default=0, metavar="N", help="(default: 0)")
    parser.add_argument(
        "--cardinalities",
        choices=("scaled", "kaggle"),
        default="scaled",
        help="categories to draw from: the Kaggle data's, or those scaled down (default: scaled)",
    )


def _add_describe(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(run=_describe)
    parser.add_argument("dataset", metavar="DIR")
    parser.add_argument("--verify", action="store_true", help="compare all checksums")


def _prepare(options: argparse.Namespace) -> None:
    import shlex

    from tf_compemb.data.encoders import DEFAULT_HASH_BUCKETS
    from tf_compemb.data.errors import DataError

    buckets = options.hash_buckets
    settings = {
        "encoder": options.encoder,
        "min_count": options.min_count,
        "hash_buckets": DEFAULT_HASH_BUCKETS if buckets is None else buckets,
        "bad_lines": options.bad_lines,
        "max_bad_share": options.max_bad_share,
        "memory": options.memory,
    }
    if options.runner == "beam":
        from tf_compemb.data.beam_preparation import prepare_with_beam

        settings["beam_options"] = shlex.split(options.beam_options)
        dataset = prepare_with_beam(options.raw, options.out, **settings)
    elif options.beam_options:
        raise DataError("--beam-options goes with --runner beam.")
    else:
        from tf_compemb.data.preparation import prepare

        dataset = prepare(options.raw, options.out, **settings)
    left_out = dataset.manifest["bad_lines"]
    bad = f", {counted(left_out, 'bad line')} in bad_lines.tsv" if left_out else ""
    ids = counted(sum(dataset.cardinalities), "id")
    print(f"{dataset.path}: {counted(dataset.rows, 'row')}, {ids}{bad}")


def _generate(options: argparse.Namespace) -> None:
    from tf_compemb.data.criteo_format import KAGGLE_CARDINALITIES
    from tf_compemb.data.generator import generate

    sizes = KAGGLE_CARDINALITIES if options.cardinalities == "kaggle" else None
    truth = generate(options.out, options.rows, options.seed, cardinalities=sizes)
    best = truth["best"]["all"]
    auc = "undefined" if best["auc"] is None else best["auc"]
    print(
        f"{options.out}: {counted(options.rows, 'synthetic row')}; best achievable "
        f"AUC {auc}, log loss {best['log_loss']}"
    )


def _describe(options: argparse.Namespace) -> None:
    from tf_compemb.data.prepared_dataset import PreparedDataset

    dataset = PreparedDataset(options.dataset)
    if options.verify:
        dataset.verify()
    _print_summary(dataset)
    _print_fields(dataset)
    if options.verify:
        files = len(dataset.manifest["files"])
        print(f"verified: all {files} files are as they were written (SHA-256).")


def _print_summary(dataset: PreparedDataset) -> None:
    from rich.console import Console
    from rich.table import Table

    manifest = dataset.manifest
    encoder = ", ".join(f"{name}={value}" for name, value in manifest["encoder"].items())
    table = Table(title=str(dataset.path), show_header=False)
    table.add_row("rows", f"{dataset.rows:,}" + (" (synthetic)" if dataset.synthetic else ""))
    for split in dataset.splits:
        table.add_row(split, f"{dataset.split_size(split):,}")
    table.add_row("encoder", encoder)
    table.add_row("ids of all fields", f"{sum(dataset.cardinalities):,}")
    table.add_row("bad lines left out", f"{manifest['bad_lines']:,}")
    for source in manifest["sources"]:
        table.add_row("source", f"{source['name']}, {source['size']:,} bytes")
    table.add_row("fingerprint", dataset.fingerprint[:16])
    Console().print(table)


def _print_fields(dataset: PreparedDataset) -> None:
    from rich.console import Console
    from rich.table import Table

    from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS

    table = Table()
    for heading in ("field", "ids", "ids in train", "rows of id 0", "of the commonest"):
        table.add_column(heading, justify="right")
    for field, cardinality in zip(CATEGORICAL_FIELDS, dataset.cardinalities, strict=True):
        ids, counts = dataset.occurring(field)
        shown = (cardinality, len(ids), counts[ids == 0].sum(), counts.max(initial=0))
        table.add_row(field, *(f"{number:,}" for number in shown))
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
