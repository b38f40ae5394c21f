"""The console script `tf-compemb`: one sub-command for each program."""

from __future__ import annotations

import argparse
import importlib
import sys

from tf_compemb import __version__

PROGRAMS = {
    "train": ("tf_compemb.train", "train a click model and report quality, bytes and speed"),
    "experiments": (
        "tf_compemb.experiments.__main__",
        "the QR paper's figures and table, and the leaderboard of all methods",
    ),
    "export": ("tf_compemb.export.__main__", "export a trained model for TF-Serving or LiteRT"),
    "reconstruction": (
        "tf_compemb.experiments.reconstruction",
        "measure how well methods keep a trained table",
    ),
    "serving": ("tf_compemb.serving.__main__", "serve, call and compare exported models"),
    "data": ("tf_compemb.data.__main__", "prepare, generate or describe Criteo-format data"),
    "benchmark": ("tf_compemb.benchmark.__main__", "measure speed and memory beside the peers"),
    "native-kernels": (
        "tf_compemb.native_kernels.__main__",
        "compile optional kernels that train large tables faster on a CPU",
    ),
}


def main(argv: list[str] | None = None) -> int:
    """Runs a sub-command; its options are those of `python -m tf_compemb.SUBCOMMAND`.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The sub-command's exit status.
    """
    parser = argparse.ArgumentParser(
        prog="tf-compemb",
        description="Memory-efficient embeddings for recommender systems.",
        epilog="`tf-compemb PROGRAM --help` shows a program's options.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"tf_compemb {__version__}")
    parser.add_argument(
        "program",
        choices=list(PROGRAMS),
        help="; ".join(f"{name}: {what}" for name, (_, what) in PROGRAMS.items()),
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="the program's options")
    chosen = parser.parse_args(argv)
    module = importlib.import_module(PROGRAMS[chosen.program][0])
    return module.main(chosen.arguments)


if __name__ == "__main__":
    sys.exit(main())
