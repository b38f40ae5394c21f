"""`tf-compemb export`: a checked export of a run, a `.keras` file, or a new model."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

from tf_compemb.data.errors import DataError
from tf_compemb.export.command_options import ExportOptions, parse
from tf_compemb.export.command_options import add_options as add_options
from tf_compemb.export.errors import ExportError
from tf_compemb.export.loading import load_keras_file, load_trained_run, new_model
from tf_compemb.missing_packages import reports_missing_packages
from tf_compemb.progress_lines import ProgressLines
from tf_compemb.training.errors import UserError
from tf_compemb.training.shortage import told_in_one_sentence

USER_ERROR = 2  # Exit status of argparse too.


@reports_missing_packages("train")
def main(argv: list[str] | None = None) -> int:
    """Runs the program.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The exit status: 0, or 2 for a mistake in what was given and for an export that was refused.
    """
    try:
        options = parse(argv)
        with told_in_one_sentence():
            path = _export(options)
    except (UserError, ExportError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        print("interrupted; nothing was published", file=sys.stderr)
        return 128 + signal.SIGINT
    _print_summary(path)
    return 0


def _export(options: ExportOptions) -> Path:
    from tf_compemb.export.versions import check_version
    from tf_compemb.training.run_directory import check_writable

    base = options.out / options.name
    check_writable(base)
    check_version(base, options.version)
    doing = "making the model" if options.run is None else f"reading {options.run}"
    with ProgressLines(lambda: doing):
        model, source = _load(options)
        if not options.raw:
            source = dataclasses.replace(source, numbering=None)
        from tf_compemb.export import saved_model, tflite

        doing = f"writing and checking {base}"
        if options.format == "tflite":
            return tflite(model, base, version=options.version, source=source)
        return saved_model(
            model, base, version=options.version, precision=options.precision, source=source
        )


def _load(options: ExportOptions) -> tuple[Any, Any]:
    if options.model is not None:
        return new_model(options.model)
    run = options.run or Path()
    if not run.exists():
        raise UserError(f"{run}: there is no such run directory or file.")
    if run.is_file():
        return load_keras_file(run)
    return load_trained_run(run, options.data, options.raw)


def _print_summary(path: Path) -> None:
    card = json.loads((path / "model_card.json").read_text())
    size, check = card["bytes"], card["check"]
    state = {True: "trained", False: "untrained", None: ""}[card["trained"]]
    if card.get("synthetic"):
        state += " on generated (synthetic) data"
    print(f"{path}{os.sep}  {card['format']}, {card['precision']}{state and ', '}{state}")
    print(f"signatures  {_names(card['signatures'])}")
    for name in ("embeddings", "network", "vocabulary", "graph", "directory"):
        if size[name]:
            more = f"  (full tables: {size['full_tables']:,})" if name == "embeddings" else ""
            print(f"{name:<11}{size[name]:>15,} bytes{more}")
    worst = max(check["largest_differences"].values())
    print(
        f"checked     {check['rows']}: largest difference {worst:.1e}, "
        f"allowed {check['tolerance']:.0e}"
    )


def _names(signatures: dict[str, Any]) -> str:
    """The names, with those of the fields as a range."""
    fields = [name for name in signatures if name.startswith("embeddings_")]
    names = [name for name in signatures if name not in fields]
    if len(fields) > 2:
        fields = [f"{fields[0]} .. {fields[-1]}"]
    return ", ".join([*names, *fields])


if __name__ == "__main__":
    sys.exit(main())
