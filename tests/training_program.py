"""What the tests of the training program share: its call, its files, a small run's options."""

import csv
import json
import os
from pathlib import Path

from tf_compemb.train import main

SMALL = ["--dim", "4", "--batch-size", "32", "--optimizer", "amsgrad", "--learning-rate", "0.01"]


def run_program(*arguments) -> int:
    return main([str(argument) for argument in arguments])


def history(run: Path) -> list[dict[str, str]]:
    with (run / "history.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def metrics(run: Path) -> dict:
    return json.loads((run / "metrics.json").read_text())


def needs_tf_keras() -> str | None:
    """Why the current runtime cannot run the program, or None."""
    if os.environ.get("TF_USE_LEGACY_KERAS") in ("1", "true"):
        return None
    return "training needs tensorflow-recommenders, and with it tf_keras (TF_USE_LEGACY_KERAS=1)"
