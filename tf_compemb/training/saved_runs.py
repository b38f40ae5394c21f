"""The final model of a run: how it is kept and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tf_compemb._keras import keras
from tf_compemb.training.run_directory import RunDirectory, replacing


def save_model(model: Any, run: RunDirectory) -> None:
    """Writes `model/model.keras`: architecture and weights, without the optimiser's state."""
    run.model.mkdir(exist_ok=True)
    optimizer, model.optimizer = model.optimizer, None
    try:
        with replacing(run.model / "model.keras") as temporary:
            model.save(temporary)
    finally:
        model.optimizer = optimizer


def load_run(path: str | Path) -> Any:
    """The trained model of a finished run, ready to predict.

    Args:
        path: The run's directory.

    Returns:
        A `ClickModel`; called with `{"dense": (B, 13), "categorical": (B, fields)}` it gives
        logits (B, 1).

    Raises:
        UserError: There is no finished run.
    """
    from tf_compemb import models  # noqa: F401  Registers the classes that the file names.

    file = RunDirectory(path).finished_model()
    return keras.models.load_model(file, compile=False)
