"""Options of `tf-compemb experiments`."""

from __future__ import annotations

import argparse
from pathlib import Path

from tf_compemb._program import Parser
from tf_compemb.experiments.grid import GRIDS, grid_names
from tf_compemb.training.option_types import method_list, positive_integer, seed_count

ALL = ("figure4", "figure5", "figure6", "figure7", "table1", "leaderboard")


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options given; a mistake ends the program with status 2 and one sentence.

    Args:
        argv: Arguments; None for the process's own.
    """
    parser = Parser(prog="tf-compemb experiments")
    add_options(parser)
    options = parser.parse_args(argv)
    known = [*grid_names(), "all"]
    for name in options.names:
        if name not in known:
            parser.error(f"no experiment is called {name!r}; there are {', '.join(known)}")
    if not options.names and not options.grid:
        parser.error("give the NAME of an experiment, or --grid FILE")
    if options.data and options.rows is not None:
        parser.error("--rows is the size of generated data; leave it out when --data is given")
    if options.out.exists() and not options.out.is_dir():
        parser.error(f"--out {options.out} is a file; give a directory")
    names = [n for name in options.names for n in (ALL if name == "all" else [name])]
    options.names = list(dict.fromkeys(names))
    return options


def add_options(parser: argparse.ArgumentParser) -> None:
    """Adds the program's description and options to a parser of its own."""
    parser.description = (
        "Figures and table of the QR paper (Shi et al. 2020) and the leaderboard of all methods at "
        "equal bytes: many training runs, their tables, figures and a report. What was run is "
        "kept: a command that was stopped or killed goes on where it was."
    )
    parser.epilog = (
        f"The grids are JSON files in {GRIDS}; copy one, change it, and give it by --grid."
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help=f"{', '.join(grid_names())}, or all: {', '.join(ALL)}",
    )
    parser.add_argument(
        "--grid", type=Path, action="append", default=[], metavar="FILE", help="a grid of your own"
    )
    _add_data_options(parser.add_argument_group("data"))
    _add_run_options(parser.add_argument_group("runs"))


def _add_data_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--data",
        nargs="+",
        metavar="PATH",
        help="raw Criteo files (plain or gzip, a glob) or one prepared data set; without it, data "
        "are generated and every result is labelled synthetic",
    )
    group.add_argument(
        "--rows",
        type=positive_integer,
        metavar="N",
        help="rows to generate when there is no --data (default: 200000)",
    )
    group.add_argument(
        "--cache",
        metavar="DIR",
        help="directory for prepared data (default: $TF_COMPEMB_CACHE or the user's cache "
        "directory)",
    )


def _add_run_options(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--model", choices=("dlrm", "dcn", "both"), default="both", help="(default: both)"
    )
    group.add_argument(
        "--seeds",
        type=seed_count,
        metavar="N",
        help="trials of each point (default: the grid's, 5 in the paper's)",
    )
    group.add_argument(
        "--optimizer",
        type=method_list,
        metavar="NAME[,NAME...]",
        help="only these of the grid's optimisers",
    )
    group.add_argument(
        "--only",
        type=method_list,
        metavar="SERIES[,SERIES...]",
        help="only these series of the grid, such as full,hash,mult",
    )
    group.add_argument(
        "--values",
        type=method_list,
        metavar="VALUE[,VALUE...]",
        help="only these values of the setting that the series vary (collisions, budget, ...), "
        "such as 4,60; a series that varies none stays",
    )
    group.add_argument(
        "--epochs",
        type=positive_integer,
        metavar="N",
        help="passes over the training part instead of the grid's; of several, the one with the "
        "lowest validation loss counts",
    )
    group.add_argument(
        "--jobs",
        type=positive_integer,
        metavar="N",
        help="runs at a time, as far as memory allows (default: the processor's cores)",
    )
    group.add_argument(
        "--out",
        type=Path,
        default=Path("experiments"),
        metavar="DIR",
        help="for results.csv, summary.csv, figures and report.html (default: experiments)",
    )
    group.add_argument(
        "--runs",
        type=Path,
        metavar="DIR",
        help="where single runs are kept, and found again by any command (default: OUT/runs)",
    )
    group.add_argument(
        "--estimate",
        action="store_true",
        help="train nothing: measure some steps, print the time and memory that all runs would "
        "take; without --data, for the whole of Criteo Kaggle",
    )
