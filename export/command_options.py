"""The export program's command line."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

from tf_compemb._program import Parser
from tf_compemb.training.errors import UserError
from tf_compemb.training.option_groups import add_model_options
from tf_compemb.training.option_types import positive_integer, seed
from tf_compemb.training.options import TrainingOptions


@dataclass(frozen=True)
class ExportOptions:
    """What is to be exported, and where to.

    Attributes: one for each option of `tf-compemb export --help`, with the same meaning;
        `model` has those of the trainer, and is None without `--untrained`.
    """

    run: Path | None
    out: Path
    name: str
    version: int | None
    precision: str
    format: str
    data: str | None
    raw: bool
    model: TrainingOptions | None


def parse(argv: list[str] | None) -> ExportOptions:
    """Options of a command line.

    Raises:
        UserError: Options that contradict one another.
        SystemExit: Options that argparse refuses (status 2), or `--help` (status 0).
    """
    parser = Parser(prog="tf-compemb export")
    add_options(parser)
    given = vars(parser.parse_args(argv))
    own = {
        "run": given.pop("run", None),
        "out": Path(given.pop("out")),
        "name": given.pop("name", None),
        "version": given.pop("version", None),
        "precision": given.pop("precision", "float32"),
        "format": given.pop("format", "savedmodel"),
        "data": given.pop("data", None),
        "raw": given.pop("raw", True),
    }
    untrained = given.pop("untrained", False)
    own["run"] = None if own["run"] is None else Path(own["run"])
    if own["format"] == "tflite" and own["precision"] != "float32":
        raise UserError(
            f"--format tflite is float32 only: the interpreter would expand {own['precision']} "
            "tables to float32 as a whole, and take more memory than without."
        )
    model = _model_options(own["run"], untrained, given)
    if own["name"] is None:
        own["name"] = _default_name(own["run"], model)
    if not own["name"] or own["name"].startswith(".") or set(own["name"]) & set("/\\:"):
        raise UserError(f"--name {own['name']!r} cannot be the name of a directory and of a model.")
    return ExportOptions(**own, model=model)


def _model_options(run: Path | None, untrained: bool, given: dict) -> TrainingOptions | None:
    if not untrained:
        if run is None:
            raise UserError("Name a RUN, the directory of a finished run, or --untrained.")
        if given:
            name = sorted(given)[0].replace("_", "-")
            raise UserError(f"--{name} goes with --untrained; a RUN has been trained already.")
        return None
    if run is not None:
        raise UserError(f"--untrained makes a new model: leave out {run}, or --untrained.")
    if "cardinalities" not in given:
        raise UserError("--untrained needs --cardinalities kaggle, a file, or numbers: n1,n2,...")
    if "embedding" in given:
        given["embedding"] = tuple(given["embedding"])
    return TrainingOptions(**given)


def _default_name(run: Path | None, model: TrainingOptions | None) -> str:
    if model is not None:
        return f"{model.model}-{model.embedding[0].partition(':')[0]}"
    assert run is not None
    return run.stem if run.suffix == ".keras" else run.resolve().name


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the program's description and options to a parser of its own."""
    parser.argument_default = argparse.SUPPRESS
    parser.description = (
        "Export a trained model as DIR/NAME/VERSION/ for TF-Serving, with its encoder in the "
        "graph, or for LiteRT. The result is reopened and compared with the model before it "
        "gets its name."
    )
    parser.add_argument(
        "run",
        nargs="?",
        metavar="RUN",
        help="run directory of tf-compemb train, or a .keras file",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="directory of all models")
    parser.add_argument("--name", help="the model's name (default: RUN's)")
    parser.add_argument(
        "--version", type=positive_integer, metavar="N", help="(default: the next one)"
    )
    parser.add_argument(
        "--precision",
        choices=("float32", "float16", "bfloat16"),
        help="how tables are stored; rows are cast when they are read (default: float32)",
    )
    parser.add_argument("--format", choices=("savedmodel", "tflite"), help="(default: savedmodel)")
    parser.add_argument(
        "--no-raw",
        dest="raw",
        action="store_false",
        help="leave out the signature that takes raw values, and with it the vocabulary",
    )
    parser.add_argument(
        "--data",
        metavar="DIR",
        help="prepared data of a run that keeps no encoder itself, as those of older versions",
    )
    _add_untrained(parser)


def _add_untrained(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("an untrained model, to measure sizes and speed")
    group.add_argument(
        "--untrained", action="store_true", help="export a new model instead of a RUN"
    )
    group.add_argument(
        "--cardinalities",
        metavar="WHAT",
        help="ids of each field: kaggle, a file with numbers, or n1,n2,...",
    )
    add_model_options(group)
    group.add_argument("--seed", type=seed, metavar="N", help="of the weights (default: 0)")
