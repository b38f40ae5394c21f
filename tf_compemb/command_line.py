"""The console script `tf-compemb`: one sub-command for each program."""

from __future__ import annotations

import importlib
import sys
from typing import Any, NoReturn

from tf_compemb import __version__
from tf_compemb._program import Parser
from tf_compemb.completion import add_print_completion

PROGRAMS = {
    "train": ("tf_compemb.train", "train click models, compare methods"),
    "export": ("tf_compemb.export.__main__", "write a trained model for TF-Serving or LiteRT"),
    "serving": ("tf_compemb.serving.__main__", "serve, call and compare exported models"),
    "data": ("tf_compemb.data.__main__", "prepare, generate and describe Criteo data"),
    "experiments": ("tf_compemb.experiments.__main__", "the paper's figures, the leaderboard"),
    "reconstruction": (
        "tf_compemb.experiments.reconstruction",
        "how well methods keep a trained table",
    ),
    "benchmark": ("tf_compemb.benchmark.__main__", "speed and memory beside the peers"),
    "native-kernels": ("tf_compemb.native_kernels.__main__", "compile kernels for large tables"),
}
"""Each program's module, which has `main` and `add_options`, and what it does."""


def main(argv: list[str] | None = None) -> int:
    """Runs a sub-command, as `python -m` with the module's name would.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The sub-command's exit status.
    """
    given = sys.argv[1:] if argv is None else argv
    if given and given[0] in PROGRAMS:
        return _module(given[0]).main(given[1:])
    return _explain(given)


def _explain(given: list[str]) -> NoReturn:
    """Prints help, the version or a completion, or says what is wrong."""
    parser, _ = _parser_of_names()
    parser.parse_args(given)
    parser.error("the PROGRAM must come first")


def make_parser() -> Parser:
    """The parser of the whole command, with the options of every program."""
    parser, programs = _parser_of_names()
    for name, program in programs.items():
        _module(name).add_options(program)
    return parser


def _parser_of_names() -> tuple[Parser, dict[str, Parser]]:
    """The parser of the command, and those of the programs, still without options."""
    parser = Parser(
        prog="tf-compemb",
        description="Memory-efficient embeddings for recommender systems.",
        epilog="`tf-compemb PROGRAM --help` shows a program's options.",
    )
    parser.add_argument("--version", action="version", version=f"tf_compemb {__version__}")
    add_print_completion(parser)
    programs = parser.add_subparsers(title="programs", metavar="PROGRAM", required=True)
    return parser, {n: programs.add_parser(n, help=what) for n, (_, what) in PROGRAMS.items()}


def _module(program: str) -> Any:
    return importlib.import_module(PROGRAMS[program][0])


if __name__ == "__main__":
    sys.exit(main())
