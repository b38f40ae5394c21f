"""Completion of `tf-compemb` in a shell: a script that `shtab` writes from the parser."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import Any

SHELLS = ("bash", "zsh", "fish")
# What an argument that is called so is the path of.
_FOLDERS = ("DIR", "RUN", "MODEL", "MODEL_DIR")
_FILES = ("FILE", "PATH", "RAW", "PYTHON", "JSON|FILE")


def add_print_completion(parser: argparse.ArgumentParser) -> None:
    """Adds `--print-completion SHELL`, which prints the script and ends the program."""
    parser.add_argument(
        "--print-completion",
        action=_PrintCompletion,
        choices=SHELLS,
        help="print a script that completes this command in a shell",
    )


class _PrintCompletion(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        try:
            import shtab
        except ImportError:
            parser.error(f"{option_string} needs the package shtab: pip install shtab")
        from tf_compemb._signatures import method_arguments
        from tf_compemb.command_line import make_parser
        from tf_compemb.experiments.grid import grid_names

        # What a list of names may hold; to argparse it is any text.
        names = {"embedding": sorted(method_arguments()), "names": [*grid_names(), "all"]}
        complete = make_parser()
        for action in _actions(complete):
            if action.metavar in _FOLDERS:
                action.complete = shtab.DIRECTORY
            elif action.metavar in _FILES:
                action.complete = shtab.FILE
            elif action.dest in names:
                action.choices = names[action.dest]
        print(shtab.complete(complete, values))
        parser.exit()


def _actions(parser: argparse.ArgumentParser) -> Iterator[Any]:
    """The options and arguments of a parser and of all its sub-parsers."""
    for action in parser._actions:
        yield action
        if isinstance(action, argparse._SubParsersAction):
            for one in action.choices.values():
                yield from _actions(one)
