"""`tf-compemb serving COMMAND`: a local server, its client, and comparisons."""

from __future__ import annotations

import argparse
import sys

from tf_compemb._program import Parser, command_of
from tf_compemb.data.errors import DataError
from tf_compemb.missing_packages import reports_missing_packages
from tf_compemb.serving.client_command import add_predict
from tf_compemb.serving.compare_command import add_compare, add_empty
from tf_compemb.serving.serve import add_serve
from tf_compemb.training.errors import UserError

USER_ERROR = 2


@reports_missing_packages("serving")
def main(argv: list[str] | None = None) -> int:
    """Runs one command.

    Args:
        argv: Arguments; None for the process's own.

    Returns:
        The exit status: 0, or 2 when the user can mend it, which one sentence on standard error
        explains.
    """
    parser = Parser(prog="tf-compemb serving")
    add_options(parser)
    options = parser.parse_args(argv)
    options.command = command_of("serving", argv)
    try:
        return options.run(options)
    except (UserError, DataError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        return 130


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the program's description and commands to a parser of its own."""
    parser.description = (
        "SavedModels behind TensorFlow Serving's API: a local server, a client, and comparisons."
    )
    parser.epilog = "`tf-compemb serving COMMAND --help` shows a command's options."
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    add_serve(commands)
    add_predict(commands)
    add_compare(commands)
    add_empty(commands)


if __name__ == "__main__":
    sys.exit(main())
