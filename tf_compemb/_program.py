"""What the programs of `tf-compemb` share: their parser, and the command that was given."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Sequence
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, without a page of options before it."""

    def error(self, message: str) -> NoReturn:
        """Ends the program with exit code 2, or raises an error that does not name the program."""
        if not self.exit_on_error:
            raise argparse.ArgumentError(None, message)
        self.exit(2, f"error: {message}; {self.prog} --help lists the options.\n")


def counted(number: int, noun: str) -> str:
    """A number with its noun, in the plural where it is one.

    >>> counted(1, "seed"), counted(1200, "run")
    ('1 seed', '1,200 runs')
    """
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def command_of(program: str, argv: Sequence[str] | None) -> str:
    """The command that runs a program with its arguments, for the record.

    Args:
        program: Name in `tf-compemb --help`.
        argv: The program's arguments; None for the process's own.

    >>> command_of("train", ["--out", "my runs"])
    "tf-compemb train --out 'my runs'"
    """
    return shlex.join(["tf-compemb", program, *(sys.argv[1:] if argv is None else argv)])
