"""What the tests of the experiments share: a small grid, runs that nobody trained, a program."""

import json
import os
import subprocess
import sys
from pathlib import Path

from tf_compemb.experiments.grid import read_grid
from tf_compemb.experiments.plan import points_of, runs_of
from tf_compemb.layers import method_names
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.run_directory import write_csv, write_json

CARDINALITIES = (5, 40, 7, 90)
VERSIONS = {"tf_compemb": "1", "tensorflow": "2", "tf_keras": "2", "numpy": "2", "python": "3"}
GRID = {
    "title": "A small grid",
    "source": "nothing",
    "about": "Three points.",
    "plot": "parameters",
    "models": ["dlrm"],
    "seeds": 2,
    "optimizers": [{"optimizer": "adagrad"}, {"optimizer": "amsgrad"}],
    "settings": {"dim": 4, "batch_size": 32, "threshold": 0},
    "baselines": ["full", "hash"],
    "vary": {"collisions": [3]},
    "series": [
        {"name": "full", "label": "full table", "embedding": "full", "vary": None},
        {"name": "hash", "label": "hash", "embedding": "hash"},
        {"name": "mult", "label": "QR <mult>", "embedding": "qr"},
    ],
    "comparisons": [{"title": "the same size", "this": ["mult", 3], "with": ["hash", 3]}],
}


def write_grid(folder: Path, **changes) -> Path:
    file = folder / "small.json"
    file.write_text(json.dumps({**GRID, **changes}))
    return file


class Data:
    """As much of a prepared data set as planning asks for."""

    fingerprint = "f" * 64
    synthetic = True
    cardinalities = CARDINALITIES

    def steps(self, split, batch_size):
        return -(-342 // batch_size)


def planned(tmp_path, **changes):
    grid = read_grid(write_grid(tmp_path, **changes), method_names())
    points = points_of(grid, ["dlrm"], CARDINALITIES, TrainingOptions(data=("d",)), {})
    return grid, points, runs_of(grid, points, grid.seeds, Data(), VERSIONS)


def metrics_of(run, test_loss: float, validation_loss: float = 0.5) -> dict:
    """What `metrics.json` would hold, with sizes by formula."""
    sizes = run.point.sizes
    return {
        "test_loss": test_loss,
        "test_auc": 0.75,
        "test_accuracy": 0.77,
        "validation_loss": validation_loss,
        "validation_auc": 0.76,
        "validation_accuracy": 0.78,
        "parameters": sizes.parameters,
        "embedding_parameters": sizes.embedding_parameters,
        "embedding_bytes": sizes.embedding_bytes,
        "embedding_training_bytes": sizes.training_bytes,
        "optimizer_bytes": 8,
        "epochs": 1,
        "best_epoch": 1,
        "batch_size": run.options.batch_size,
        "train_rows": 342,
        "synthetic": True,
        "examples_per_second": 6400.0,
        "training_seconds": 1.5,
        "wall_seconds": 2.5,
        "peak_rss_bytes": 10**9,
        "model": run.point.model,
        "optimizer": run.options.optimizer,
        "seed": run.seed,
    }


def pretend(store, run, test_loss: float, validation_loss: float = 0.5) -> None:
    """A finished run with these losses."""
    directory = store.directory(run.key)
    directory.path.mkdir(parents=True)
    write_json(directory.config, {})
    history = [[10, 1, 0.6, validation_loss + 0.1, 0.7, 0.7], [11, 1, 0.5, validation_loss, 0, 0]]
    columns = ["step", "epoch", "train_loss", "validation_loss", "auc", "accuracy"]
    write_csv(directory.history, columns, history)
    write_json(directory.metrics, metrics_of(run, test_loss, validation_loss))


def program(*arguments, cache: Path) -> subprocess.Popen:
    """`tf-compemb experiments` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "tf_compemb.experiments", *map(str, arguments)],
        env={**os.environ, "TF_COMPEMB_CACHE": str(cache)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
