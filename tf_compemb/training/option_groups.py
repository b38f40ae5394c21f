"""The training program's options by group; `command_options` makes a command line of them."""

from __future__ import annotations

import argparse
from typing import Any

from tf_compemb.optimizers.names import DEFAULT_LEARNING_RATES
from tf_compemb.training.option_types import (
    assignment,
    field_settings,
    method_list,
    modulus,
    natural_number,
    positive_integer,
    positive_number,
    seed,
    seed_count,
    share,
    temperature,
    thread_count,
)
from tf_compemb.training.options import TrainingOptions

MODELS = ("dlrm", "dcn")
OPERATIONS = ("mult", "add", "concat", "feature")
_DEFAULT = TrainingOptions()


class _Collected(argparse.Action):
    """NAME=VALUE, given any number of times, as one mapping."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: Any = None) -> None:
        name, value = values
        setattr(namespace, self.dest, {**getattr(namespace, self.dest, {}), name: value})


def _add(group: Any, name: str, help_text: str, **settings: Any) -> None:
    """Adds an option whose help ends with the dataclass's default."""
    default = getattr(_DEFAULT, name[2:].replace("-", "_"))
    if default not in (None, (), {}, False):
        shown = ",".join(default) if isinstance(default, tuple) else default
        help_text += f" (default: {shown})"
    group.add_argument(name, help=help_text, **settings)


def add_data_options(group: Any) -> None:
    """Which rows, and how their categories become ids."""
    _add(
        group,
        "--data",
        "raw Criteo files (plain or gzip, a glob) or one prepared data set; "
        "without it, data are generated and every result is labelled synthetic",
        nargs="+",
        metavar="PATH",
    )
    _add(group, "--rows", "rows to generate when there is no --data", type=positive_integer)
    _add(
        group,
        "--cache",
        "directory for prepared data (default: $TF_COMPEMB_CACHE or the user's cache directory)",
        metavar="DIR",
    )
    _add(
        group,
        "--encoder",
        "how categories become ids (default: vocabulary)",
        choices=("vocabulary", "hash"),
    )
    _add(
        group,
        "--min-count",
        "categories seen fewer times in the training part share one id (default: 1)",
        type=positive_integer,
        metavar="N",
    )
    _add(
        group,
        "--hash-buckets",
        "ids of a field with --encoder hash (default: 1048576)",
        type=positive_integer,
        metavar="N",
    )
    _add(
        group,
        "--bad-lines",
        "stop at a malformed line, or skip and count it (default: error)",
        choices=("error", "skip"),
    )


def add_model_options(group: Any) -> None:
    """Adds the options that say which model and which embedding; `export` has them too."""
    _add(group, "--model", "the network", choices=MODELS)
    _add(
        group,
        "--network",
        "a hyper-parameter of the network, such as top_units=[64]; may be repeated",
        type=assignment,
        action=_Collected,
        metavar="NAME=VALUE",
    )
    _add(
        group,
        "--embedding",
        "the method: full, hash, qr, or any other of tf_compemb/layers/README.md; several with "
        "commas give one run each and a comparison; NAME:OPTION=VALUE sets an option for one of "
        "them (qr:operation=add)",
        type=method_list,
        metavar="NAME[,NAME...]",
    )
    _add(group, "--operation", "how partitions' vectors are combined", choices=OPERATIONS)
    _add(
        group,
        "--collisions",
        "ids that share a row: the method's own default is 4",
        type=positive_integer,
        metavar="C",
    )
    _add(
        group,
        "--modulus",
        "the paper's Algorithm 2: rows of the remainder table (qr); large gives it the rows and "
        "leaves the quotient table C of them",
        type=modulus,
        metavar="M|large",
    )
    _add(
        group,
        "--partitions",
        "partitions of the compositional method: mixed-radix:K or chinese-remainder:K, K balanced "
        "partitions",
        metavar="FAMILY:K",
    )
    _add(
        group,
        "--threshold",
        "fields with at most this many ids keep a full table (default: fields that would not "
        "become smaller)",
        type=natural_number,
        metavar="N",
    )
    _add(group, "--dim", "width of an embedding vector", type=positive_integer, metavar="D")
    _add(
        group,
        "--option",
        "a method's own hyper-parameter, such as hidden_units=[64]; may be repeated",
        type=assignment,
        action=_Collected,
        metavar="NAME=VALUE",
    )
    _add(
        group,
        "--overrides",
        "settings of single fields, C1 to C26, as JSON or a file of it: embedding, options, "
        'threshold; such as {"C3": {"embedding": "qr", "options": {"collisions": 60}}}',
        type=field_settings,
        metavar="JSON|FILE",
    )


def add_training_options(group: Any) -> None:
    """How the model is trained."""
    _add(group, "--epochs", "passes over the training part", type=positive_integer, metavar="N")
    _add(
        group,
        "--batch-size",
        "rows of a step, over all devices",
        type=positive_integer,
        metavar="N",
    )
    _add(group, "--optimizer", "the optimiser", choices=tuple(DEFAULT_LEARNING_RATES))
    _add(
        group,
        "--learning-rate",
        "step size (default: the optimiser's)",
        type=positive_number,
        metavar="RATE",
    )
    _add(
        group,
        "--warmup-steps",
        "steps over which the step size grows to its value (default: 100 with Adagrad, else 0)",
        type=natural_number,
        metavar="N",
    )
    _add(
        group,
        "--precision",
        "compute type of the network",
        choices=("float32", "mixed_bfloat16"),
    )
    _add(
        group,
        "--distill",
        "a finished run on the same data whose model teaches this one, beside the labels",
        metavar="RUN",
    )
    _add(
        group,
        "--distill-weight",
        "share of the teacher in the loss, 0 to 1",
        type=share,
        metavar="W",
    )
    _add(
        group,
        "--temperature",
        "by which the logits of teacher and student are divided before they are compared",
        type=temperature,
        metavar="T",
    )
    _add(group, "--seed", "of initial weights and order of rows", type=seed)
    _add(
        group,
        "--seeds",
        "repeat with N seeds from --seed on and report mean and spread",
        type=seed_count,
        metavar="N",
    )
    _add(
        group,
        "--strategy",
        "none: one device; mirrored: the GPUs of this host; multiworker: as TF_CONFIG says",
        choices=("none", "mirrored", "multiworker"),
    )
    _add(
        group,
        "--validate-every",
        "steps between validations (default: an epoch)",
        type=positive_integer,
        metavar="STEPS",
    )


def add_speed_options(group: Any) -> None:
    """What changes only how quickly the training goes."""
    _add(
        group,
        "--steps-per-execution",
        "steps between returns from TensorFlow to Python (default: 16; 1 with a --strategy)",
        type=positive_integer,
        metavar="N",
    )
    _add(
        group,
        "--prefetch",
        "batches to have ready before they are asked for (default: as many as TensorFlow finds)",
        type=positive_integer,
        metavar="N",
    )
    _add(
        group,
        "--intra-op-threads",
        "threads within an operation (default: one a core)",
        type=thread_count,
        metavar="N",
    )
    _add(
        group,
        "--inter-op-threads",
        "operations at the same time (default: one a core)",
        type=thread_count,
        metavar="N",
    )


def add_output_options(group: Any) -> None:
    """Where and what a run writes, and what is done instead of a run."""
    _add(
        group,
        "--out",
        "run directory, new or empty (default: runs/TIME-MODEL-METHOD)",
        metavar="DIR",
    )
    _add(
        group,
        "--checkpoint-every",
        "steps between checkpoints",
        type=positive_integer,
        metavar="STEPS",
    )
    _add(group, "--resume", "go on with the run in --out at its next batch", action="store_true")
    _add(
        group,
        "--evaluate",
        "evaluate the finished run in --out on a raw file and write RUN/evaluation.json",
        metavar="FILE",
    )
    _add(
        group,
        "--dry-run",
        "print sizes only: no data are read, no table is made",
        action="store_true",
    )
    _add(
        group,
        "--cardinalities",
        "ids of each field for --dry-run: kaggle, a file with numbers, or n1,n2,...",
        metavar="WHAT",
    )
    _add(
        group,
        "--profile",
        "write a TensorBoard trace of 32 steps to RUN/profile and print where their time goes",
        action="store_true",
    )
    _add(
        group,
        "--json",
        "print the result as JSON, and nothing else, on stdout",
        action="store_true",
    )
