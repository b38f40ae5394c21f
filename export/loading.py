"""The model to export: of a run, of a `.keras` file, or new and untrained."""

from __future__ import annotations

import json
import os
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_compemb.export.errors import ExportError
from tf_compemb.training.environment import prepare_tensorflow
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.run_directory import RunDirectory

if TYPE_CHECKING:
    from tf_compemb.export.exporter import Source

_OF_A_MACHINE = ("data", "cache")  # Options that say where something lies.


class HashedCategories:
    """The numbering of a model without data: categories are hashed into each field's ids.

    Args:
        cardinalities: Ids of each field.

    Attributes:
        manifest: As of a prepared data set: the encoder's name and the cardinalities.
    """

    def __init__(self, cardinalities: Sequence[int]) -> None:
        self.manifest = {"encoder": {"name": "hash"}, "cardinalities": list(cardinalities)}


def load_trained_run(path: Path, data_path: str | None, raw: bool) -> tuple[Any, Source]:
    """The model of a finished run, with its encoder and, where they still are, its test rows.

    Args:
        path: The run directory.
        data_path: Prepared data of a run that keeps no encoder itself; None for none.
        raw: Whether the encoder is wanted.

    Raises:
        UserError: There is no finished run; the message says what there is.
    """
    run = RunDirectory(path)
    config = run.read_single_config()
    metrics = run.read_metrics()
    run.finished_model()
    data = _prepared_data(config, data_path)
    numbering = _numbering(run, data) if raw else None
    prepare_tensorflow()
    from tf_compemb.export.exporter import Source
    from tf_compemb.training.saved_runs import load_run

    about = {
        "trained": True,
        "synthetic": config["data"]["synthetic"],
        "metrics": metrics,
        "training": {
            "options": {k: v for k, v in config["options"].items() if k not in _OF_A_MACHINE},
            "versions": config["versions"],
        },
        "data": {k: config["data"][k] for k in ("fingerprint", "cardinalities", "synthetic")},
    }
    return load_run(path), Source(numbering, data, about)


def _prepared_data(config: dict[str, Any], path: str | None) -> Any:
    """The data that a run was trained on; None where they are not asked for and not there."""
    from tf_compemb.data import DataError, PreparedDataset

    stored = config["data"]
    try:
        data = PreparedDataset(path or stored["path"])
    except DataError:
        if path is None:
            return None
        raise
    if data.fingerprint == stored["fingerprint"]:
        return data
    if path is None:
        return None
    raise UserError(f"--data {path} holds other data than the run was trained on.")


def _numbering(run: RunDirectory, data: Any) -> Any:
    from tf_compemb.training.run_encoder import RunEncoder

    if run.encoder.is_dir():
        return RunEncoder(run.encoder)
    if data is None:
        raise UserError(
            f"The run in {run.path} keeps no encoder, as runs of older versions, and its prepared "
            "data are gone: give a folder with the same data by --data DIR, or --no-raw."
        )
    return data


def load_keras_file(path: Path) -> tuple[Any, Source]:
    """The model in a `.keras` file, in the Keras that wrote it.

    Raises:
        ExportError: It is no such file, or names a class that is not ours or Keras' own.
    """
    legacy = _keras_version(path).startswith("2.")
    if legacy:
        prepare_tensorflow()
    else:
        _prepare_keras3()
    from tf_compemb._keras import LEGACY, keras
    from tf_compemb.export.exporter import Source

    if legacy != LEGACY:
        raise ExportError(f"{path} was written by another Keras than the one this process runs.")
    try:
        model = keras.models.load_model(path, compile=False)
    except (TypeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ExportError(
            f"{path} cannot be loaded ({reason}): where it has classes of your own, load it in "
            "your own program and call tf_compemb.export.saved_model."
        ) from error
    return model, Source(about={"trained": None})


def _keras_version(path: Path) -> str:
    try:
        with zipfile.ZipFile(path) as archive:
            return str(json.loads(archive.read("metadata.json"))["keras_version"])
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ExportError(f"{path} is not a .keras file of Keras ({error}).") from error


def _prepare_keras3() -> None:
    if "tensorflow" not in sys.modules:
        os.environ["TF_USE_LEGACY_KERAS"] = "0"
        os.environ["KERAS_BACKEND"] = "tensorflow"
    from tf_compemb._native_log import import_tensorflow_quietly

    import_tensorflow_quietly()


def new_model(options: TrainingOptions) -> tuple[Any, Source]:
    """An untrained model by the trainer's options, for measurements of size and speed.

    Args:
        options: With one method in `embedding`, and `cardinalities`.

    Raises:
        UserError: Options that the method refuses, or unreadable cardinalities.
    """
    from tf_compemb.training.command_options import single_method
    from tf_compemb.training.dry_run import read_cardinalities
    from tf_compemb.training.first_checks import check_names

    if len(options.embedding) != 1:
        raise UserError("--untrained makes one model: name one method in --embedding.")
    check_names(options)
    options = single_method(options, options.embedding[0])
    cardinalities = read_cardinalities(options.cardinalities or "")
    prepare_tensorflow()
    from tf_compemb._keras import keras
    from tf_compemb.export.exporter import Source
    from tf_compemb.training import build

    keras.utils.set_random_seed(options.seed)
    collection = build.build_collection(options, cardinalities)
    build.require_memory(options, collection)
    model = build.build_model(options, collection)
    model.build_on_one_row()
    names = ("operation", "collisions", "modulus", "partitions", "threshold", "dim", "seed")
    asked = {name: getattr(options, name) for name in names}
    given = {name: value for name, value in asked.items() if value is not None}
    about = {"trained": False, "options": {**given, **options.option}}
    return model, Source(HashedCategories(cardinalities), None, about)
