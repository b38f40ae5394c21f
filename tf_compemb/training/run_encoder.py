"""What numbers categories as in training, kept in the run directory: a run needs no data later."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS
from tf_compemb.data.errors import DataError
from tf_compemb.data.manifest import vocabulary_file
from tf_compemb.data.prepared_dataset import PreparedDataset, read_vocabulary
from tf_compemb.training.data_source import data_of_run
from tf_compemb.training.errors import UserError
from tf_compemb.training.run_directory import RunDirectory, replacing, write_json

if TYPE_CHECKING:
    import pyarrow as pa

_FILE = "encoder.json"
_KEPT = ("encoder", "cardinalities", "dense_transform", "synthetic", "fingerprint")


class RunEncoder:
    """The encoder of a run's data, from the run directory.

    Args:
        path: `RunDirectory.encoder`.

    Attributes:
        manifest: `encoder` (name and settings), `cardinalities`, `dense_transform`, `synthetic` and
            `fingerprint` of the data's own manifest.

    Raises:
        UserError: The encoder is incomplete or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.manifest: dict[str, Any] = json.loads((path / _FILE).read_text())
        except (OSError, ValueError) as error:
            raise UserError(f"{path} holds no encoder that can be read ({error}).") from error

    def vocabulary(self, field: str) -> pa.Array:
        """The categories of a field: id `i` is the one at position `i - 1`.

        Raises:
            DataError: The encoder keeps none, or the file is gone or damaged.
        """
        path = self.path / vocabulary_file(field)
        if self.manifest["encoder"]["name"] != "vocabulary":
            raise DataError(f"{self.path}: its encoder keeps no vocabulary.")
        try:
            return read_vocabulary(path)
        except (OSError, ValueError) as error:
            raise DataError(f"{path}: cannot be read ({error}).") from error


def store_encoder(data: PreparedDataset, run: RunDirectory) -> None:
    """Puts what `RunEncoder` reads into the run directory, whole or not at all.

    Vocabularies are linked where the file system can, since prepared data never change: many runs
    on the same data keep one vocabulary.
    """
    with replacing(run.encoder) as folder:
        folder.mkdir()
        if data.manifest["encoder"]["name"] == "vocabulary":
            (folder / "vocabulary").mkdir()
            for field in CATEGORICAL_FIELDS:
                name = vocabulary_file(field)
                _link_or_copy(data.path / name, folder / name)
        write_json(folder / _FILE, {key: data.manifest[key] for key in _KEPT})


def encoder_of_run(run: RunDirectory) -> RunEncoder | PreparedDataset:
    """What a run's categories are numbered with: its own encoder, or for old runs their data.

    Raises:
        UserError: The run has no encoder, and its prepared data are gone or others.
    """
    if run.encoder.is_dir():
        return RunEncoder(run.encoder)
    return data_of_run(run)


def _link_or_copy(source: Path, target: Path) -> None:
    with contextlib.suppress(OSError):
        os.link(source.resolve(), target)
        return
    shutil.copyfile(source, target)
