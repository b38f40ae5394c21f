"""The training program's command line, and the way back from options to a command line."""

from __future__ import annotations

import argparse
import dataclasses
import json
import re

from tf_compemb._program import Parser
from tf_compemb.training.errors import UserError
from tf_compemb.training.option_groups import (
    add_data_options,
    add_model_options,
    add_output_options,
    add_speed_options,
    add_training_options,
)
from tf_compemb.training.option_types import LARGEST_SEED
from tf_compemb.training.options import TrainingOptions

_DEFAULT = TrainingOptions()


def parse(argv: list[str] | None) -> tuple[TrainingOptions, frozenset[str]]:
    """Options of a command line, and the names of those that were given on it.

    Raises:
        UserError: Options that contradict one another.
        SystemExit: Options that argparse refuses (status 2), or `--help` (status 0).
    """
    given = vars(_parser().parse_args(argv))
    for name in ("data", "embedding"):
        if name in given:
            given[name] = tuple(given[name])
    options = TrainingOptions(**given)
    _check(options, frozenset(given))
    return options, frozenset(given)


def arguments(options: TrainingOptions) -> list[str]:
    """The command line that gives these options.

    >>> arguments(TrainingOptions(model="dcn", embedding=("full", "qr"), json=True))
    ['--model', 'dcn', '--embedding', 'full,qr', '--json']
    """
    found: list[str] = []
    for entry in dataclasses.fields(options):
        value, flag = getattr(options, entry.name), "--" + entry.name.replace("_", "-")
        if value == getattr(_DEFAULT, entry.name):
            continue
        if entry.name in ("option", "network"):
            for name, setting in value.items():
                found += [flag, f"{name}={json.dumps(setting)}"]
        elif entry.name == "overrides":
            found += [flag, json.dumps(value)]
        elif entry.name == "data":
            found += [flag, *value]
        elif value is True:
            found.append(flag)
        else:
            found += [flag, ",".join(value) if isinstance(value, tuple) else str(value)]
    return found


def as_given(options: TrainingOptions) -> TrainingOptions:
    """The options as a command line of them is read, for values that come from elsewhere.

    Raises:
        UserError: A value that the command line would refuse; the message begins with its name.

    >>> as_given(TrainingOptions(dim=0))
    Traceback (most recent call last):
    tf_compemb.training.errors.UserError: dim: must be at least 1, not 0
    """
    try:
        given = vars(_parser(exit_on_error=False).parse_args(arguments(options)))
    except argparse.ArgumentError as error:
        name = (error.argument_name or "").removeprefix("--").replace("-", "_")
        raise UserError(f"{name}: {error.message}") from error
    for name in ("data", "embedding"):
        if name in given:
            given[name] = tuple(given[name])
    return TrainingOptions(**given)


def single_method(options: TrainingOptions, method: str) -> TrainingOptions:
    """The options of one of several methods, such as `qr:operation=add`.

    Raises:
        UserError: The part after the colon is no option of the program.

    >>> single_method(TrainingOptions(dim=8), "qr:operation=add").operation
    'add'
    """
    name, *settings = re.split(r":(?=[a-z-]+=)", method)
    changed = []
    for setting in settings:
        option, _, value = setting.partition("=")
        changed += [f"--{option}", value]
    try:
        given = vars(_parser(exit_on_error=False).parse_args(changed))
    except argparse.ArgumentError as error:
        raise UserError(f"--embedding {method}: {error}.") from error
    if "embedding" in given:
        raise UserError(f"--embedding {method}: a method's own options cannot name another method.")
    for own in ("option", "network"):
        if own in given:
            given[own] = {**getattr(options, own), **given[own]}
    return options.replace(embedding=(name,), **given)


def _check(options: TrainingOptions, given: frozenset[str]) -> None:
    if options.data and "rows" in given:
        raise UserError("--rows is the size of generated data; leave it out when --data is given.")
    if options.seed + options.seeds - 1 > LARGEST_SEED:
        raise UserError(
            f"--seed {options.seed} with --seeds {options.seeds} goes beyond {LARGEST_SEED}, the "
            "largest seed."
        )
    if options.evaluate and options.out is None:
        raise UserError("--evaluate needs --out RUN, the directory of a finished run.")
    if given & {"distill_weight", "temperature"} and options.distill is None:
        raise UserError("--distill-weight and --temperature need --distill RUN, the teacher's run.")
    if options.resume and options.out is None:
        raise UserError("--resume needs --out RUN, the directory of the run to go on with.")
    if options.cardinalities and not options.dry_run:
        raise UserError("--cardinalities goes with --dry-run; training takes them from the data.")
    if options.dry_run and not options.cardinalities:
        raise UserError("--dry-run needs --cardinalities kaggle, a file, or numbers: n1,n2,...")


def _parser(exit_on_error: bool = True) -> Parser:
    # Help is for a command line, not for values that come from elsewhere.
    parser = Parser(prog="tf-compemb train", exit_on_error=exit_on_error, add_help=exit_on_error)
    add_options(parser)
    return parser


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the program's description and options to a parser of its own."""
    parser.argument_default = argparse.SUPPRESS
    parser.description = (
        "Train a click model (DLRM or DCN) on Criteo-format data with compressed embeddings, "
        "and report its loss, AUC, parameters and bytes."
    )
    add_data_options(parser.add_argument_group("data"))
    add_model_options(parser.add_argument_group("model"))
    add_training_options(parser.add_argument_group("training"))
    add_speed_options(parser.add_argument_group("speed"))
    add_output_options(parser.add_argument_group("run"))
