"""The options of `tf-compemb benchmark`."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from tf_compemb._program import Parser
from tf_compemb.training.option_types import positive_integer

SUITES = {
    "lookup": "forward pass of the embeddings",
    "step": "embeddings: forward, backward and update",
    "train": "whole DLRM step",
    "scale": "DLRM step as tables grow from 1e5 to 3.4e7 rows",
    "methods": "lookup and step of every method at a tenth of the bytes",
    "kernels": "embeddings with the compiled kernels and without",
    "ingest": "rows/s and memory of preparing and reading data",
    "serve": "latency of exported models",
    "memory": "bytes by formula and by the operating system",
    "gpu": "JAX and torch layers on a GPU",
}
ROUNDS, QUICK_ROUNDS = 15, 2


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options given; a mistake ends the program with status 2 and one sentence.

    Args:
        argv: Arguments; None for the process's own.
    """
    parser = Parser(prog="tf-compemb benchmark")
    add_options(parser)
    options = parser.parse_args(argv)
    if options.rounds is None:
        options.rounds = QUICK_ROUNDS if options.quick else ROUNDS
    if shutil.which(options.peer_python) is None:
        parser.error(f"--peer-python {options.peer_python} is no program that can be run")
    if options.out is not None and options.out.exists() and not options.out.is_dir():
        parser.error(f"--out {options.out} is a file; give a directory")
    options.suites = (
        list(SUITES) if "all" in options.suites else list(dict.fromkeys(options.suites))
    )
    return options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the program's description and options to a parser of its own."""
    parser.description = (
        "Speed and memory of our layers and optimisers beside the stock ones of Keras, torch, "
        "FBGEMM, torchrec and keras-rs. Each framework has a process of its own; the cases of a "
        "group take turns, one call at a time."
    )
    parser.epilog = "suites: " + "; ".join(f"{name}: {what}" for name, what in SUITES.items())
    parser.add_argument(
        "suites", nargs="+", metavar="SUITE", choices=[*SUITES, "all"], help="see below; or all"
    )
    parser.add_argument(
        "--out", type=Path, metavar="DIR", help="write SUITE.json and SUITE.png there"
    )
    parser.add_argument(
        "--only", metavar="TEXT", help="run only the groups whose name holds TEXT, such as adagrad"
    )
    parser.add_argument(
        "--rounds",
        type=positive_integer,
        metavar="N",
        help=f"turns of each case (default: {ROUNDS})",
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="tiny tables and two rounds: shows that all runs; its numbers mean nothing",
    )
    parser.add_argument(
        "--peer-python",
        default=sys.executable,
        metavar="PYTHON",
        help="interpreter that has torch, FBGEMM, torchrec and keras-rs (default: this one)",
    )
    parser.add_argument(
        "--device", choices=("gpu", "cpu"), default="gpu", help="of the suite gpu (default: gpu)"
    )
