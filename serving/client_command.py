"""`tf-compemb serving predict`: click probabilities of Criteo lines."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import Any

from tf_compemb.serving.client import (
    Arrays,
    Client,
    GrpcClient,
    RestClient,
    ServingError,
    predict,
)
from tf_compemb.serving.client_rows import STDIN, batches, raw_inputs, read_rows
from tf_compemb.training.errors import UserError
from tf_compemb.training.option_types import natural_number, positive_integer

_COLUMNS = ("click_probability", "logit")


def add_predict(commands: Any) -> None:
    """Adds the sub-command to argparse's sub-parsers; its function is in `run`."""
    parser = commands.add_parser(
        "predict",
        help="click probabilities of Criteo lines from a running server",
        description=(
            "Send Criteo lines to a server, the local one or TensorFlow Serving, and print each "
            "line's click probability and logit."
        ),
    )
    parser.set_defaults(run=run_predict)
    address = parser.add_mutually_exclusive_group(required=True)
    address.add_argument("--grpc", metavar="HOST:PORT", help="the server's gRPC address")
    address.add_argument("--rest", metavar="URL", help="of the REST API: http://HOST:PORT")
    parser.add_argument("--model", required=True, metavar="NAME", help="the served model")
    parser.add_argument(
        "--version", type=natural_number, metavar="N", help="of the model (default: the newest)"
    )
    parser.add_argument(
        "--batch-size",
        type=positive_integer,
        default=1024,
        metavar="N",
        help="lines of a request (default: 1024)",
    )
    parser.add_argument(
        "--format",
        choices=("tsv", "jsonl"),
        default="tsv",
        help="a table with a line of names, or a JSON object a line (default: tsv)",
    )
    parser.add_argument(
        "file",
        nargs="?",
        default=STDIN,
        metavar="FILE",
        help="tab-separated lines of 39 features, or 40 with a label, plain or gzip "
        "(default: standard input)",
    )


def run_predict(options: argparse.Namespace) -> int:
    """Runs the sub-command.

    Returns:
        The exit status, 0.

    Raises:
        UserError: The address is none.
        DataError: The file cannot be read, or a line is wrong.
        ServingError: The server refused, or cannot be reached.
    """
    client = _connect(options)
    try:
        _predict_lines(client, options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader, such as `head`, has enough; Python would complain at its end otherwise.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    finally:
        client.close()
    return 0


def _connect(options: argparse.Namespace) -> Client:
    try:
        return RestClient(options.rest) if options.rest else GrpcClient(options.grpc)
    except ValueError as error:
        raise UserError(str(error)) from error


def _predict_lines(client: Client, options: argparse.Namespace) -> None:
    # With the first answer: where there is none, standard output stays empty.
    header = "\t".join(_COLUMNS) if options.format == "tsv" else None
    for part in batches(read_rows(options.file), options.batch_size):
        outputs = _predict(client, raw_inputs(part), options)
        _check_outputs(outputs, options.model)
        if header:
            print(header)
            header = None
        _print(outputs, options.format)


def _predict(client: Client, inputs: Arrays, options: argparse.Namespace) -> Arrays:
    try:
        return predict(client, options.model, inputs, signature="raw", version=options.version)
    except ServingError as error:
        if '"raw" not found' in str(error):
            raise UserError(
                f"Model {options.model} has no signature raw, which takes Criteo lines: it was "
                "exported with --no-raw, or elsewhere."
            ) from error
        raise


def _check_outputs(outputs: Arrays, model: str) -> None:
    if not set(_COLUMNS) <= set(outputs):
        raise UserError(
            f"Model {model} answers with {', '.join(sorted(outputs))} instead of "
            f"{' and '.join(_COLUMNS)}: it is no click model of `tf-compemb export`."
        )


def _print(outputs: Arrays, form: str) -> None:
    # As float32, the model's type: over REST numbers come as float64, with digits of no meaning.
    columns = [outputs[name].astype("float32").ravel() for name in _COLUMNS]
    for values in zip(*columns, strict=True):
        if form == "tsv":
            print(*values, sep="\t")
        else:
            pairs = zip(_COLUMNS, values, strict=True)
            print(json.dumps({name: float(str(value)) for name, value in pairs}))
