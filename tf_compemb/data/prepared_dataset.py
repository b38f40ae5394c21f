"""A prepared data set: opened, described, verified and read."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tf_compemb.data import manifest as manifests
from tf_compemb.data.batch_order import RowOrder
from tf_compemb.data.batch_reader import BatchReader, Features, make_dataset, stack_rows
from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS, SPLITS, record_dtype
from tf_compemb.data.errors import DataError
from tf_compemb.data.raw_reader import PathLike

if TYPE_CHECKING:
    import pyarrow as pa
    import tensorflow as tf

# Above this a table of one count an id (2 GB) would surprise.
LARGEST_FREQUENCY_TABLE = 2**28


class PreparedDataset:
    """An immutable folder that `prepare` wrote.

    Args:
        path: the folder.

    Attributes:
        path: the folder.
        manifest: what `manifest.json` holds.
        rows: rows of all splits together.
        cardinalities: for C1..C26, ids are in `[0, cardinality)`.
        splits: `[start, stop)` rows of `"train"`, `"validation"` and `"test"`.
        fingerprint: SHA-256, equal for equal data and settings.
        synthetic: True when rows were generated and are not real.

    Raises:
        DataError: the folder is missing, is no prepared data set, or is damaged.
    """

    def __init__(self, path: PathLike):
        self.path = Path(path)
        self.manifest: dict[str, Any] = manifests.read_manifest(self.path)
        self.rows: int = self.manifest["rows"]
        self.cardinalities: tuple[int, ...] = tuple(self.manifest["cardinalities"])
        self.splits: dict[str, tuple[int, int]] = {
            name: tuple(self.manifest["splits"][name]) for name in SPLITS
        }
        self.fingerprint: str = self.manifest["fingerprint"]
        self.synthetic: bool = self.manifest["synthetic"]
        self._dtype = record_dtype(self.manifest["record"]["categorical"])

    def __repr__(self) -> str:
        return f"PreparedDataset({str(self.path)!r}, rows={self.rows}, synthetic={self.synthetic})"

    def split_size(self, split: str) -> int:
        """Rows of a split."""
        start, stop = self._range(split)
        return stop - start

    def steps(self, split: str, batch_size: int, *, drop_remainder: bool = False) -> int:
        """Batches of a split; the last one may be smaller, unless it is dropped."""
        if batch_size < 1:
            raise ValueError(f"`batch_size` must be at least 1. Received: {batch_size}")
        rows = self.split_size(split)
        return rows // batch_size if drop_remainder else -(-rows // batch_size)

    def batches(
        self,
        split: str,
        batch_size: int,
        *,
        shuffle_seed: int | None = None,
        epoch: int = 0,
        start_step: int = 0,
        drop_remainder: bool = False,
        prefetch: int | None = None,
    ) -> tf.data.Dataset:
        """Returns one epoch of a split as batches `({"dense", "categorical"}, label)`.

        `dense` is float32 `[rows, 13]`, `categorical` int64 `[rows, 26]`, the label float32
        `[rows, 1]`. The order is a pure function of `shuffle_seed` and `epoch`; `start_step=k`
        gives exactly the batches that follow the first k, without reading those.

        Args:
            split: `"train"`, `"validation"` or `"test"`.
            batch_size: rows of a batch, over all replicas together.
            shuffle_seed: None reads in the order of time.
            epoch: which shuffled order of that seed.
            start_step: batches to leave out at the beginning.
            drop_remainder: leave out a smaller last batch; the batch size is a static shape then.
            prefetch: batches to have ready; None leaves the number to TensorFlow.
        """
        steps = self.steps(split, batch_size, drop_remainder=drop_remainder)
        if not 0 <= start_step <= steps:
            raise ValueError(
                f"`start_step` must be from 0 to {steps}, the batches of {split!r}. "
                f"Received: start_step={start_step}"
            )
        reader = BatchReader(
            path=self.path / manifests.ROWS_FILE,
            dtype=self._dtype,
            first_row=self._range(split)[0],
            order=RowOrder(self.split_size(split), shuffle_seed, epoch),
            batch_size=batch_size,
            steps=steps,
        )
        return make_dataset(reader, start_step, full_batches=drop_remainder, prefetch=prefetch)

    def arrays(self, split: str, start: int = 0, stop: int | None = None) -> Features:
        """Returns rows `[start, stop)` of a split as NumPy arrays, shaped as a batch."""
        first, last = self._range(split)
        rows = range(last - first)[start:stop]
        records = np.fromfile(
            self.path / manifests.ROWS_FILE,
            self._dtype,
            len(rows),
            offset=(first + rows.start) * self._dtype.itemsize,
        )
        features, label = stack_rows(records, 1)
        return {name: value[:, 0] for name, value in features.items()}, label[:, 0]

    def frequencies(self, field: str) -> np.ndarray:
        """Returns how many training rows have each id of a field: int64 `[cardinality]`.

        Args:
            field: `"C1"` to `"C26"`.
        """
        ids, occurrences = self.occurring(field)
        cardinality = self.cardinalities[CATEGORICAL_FIELDS.index(field)]
        if cardinality > LARGEST_FREQUENCY_TABLE:
            raise DataError(
                f"{self.path}: field {field} has {cardinality} ids, too many for a table of all "
                "their frequencies; use `occurring`."
            )
        counts = np.zeros(cardinality, dtype=np.int64)
        counts[ids] = occurrences
        return counts

    def occurring(self, field: str) -> tuple[np.ndarray, np.ndarray]:
        """Returns the ids of a field that occur in training, ascending, and in how many rows each.

        Both are int64 `[ids that occur]`.

        Args:
            field: `"C1"` to `"C26"`.
        """
        self._check_field(field)
        stored = np.load(self.path / manifests.frequencies_file(field))
        if stored.ndim == 2:
            return stored[:, 0], stored[:, 1]
        ids = np.flatnonzero(stored)
        return ids, stored[ids]

    def vocabulary(self, field: str) -> pa.Array:
        """Returns the categories of a field: id `i` is the one at position `i - 1`.

        Raises:
            DataError: the data was prepared by the hash encoder, which keeps none.
        """
        self._check_field(field)
        path = self.path / manifests.vocabulary_file(field)
        if not path.exists():
            raise DataError(
                f"{self.path}: has no vocabulary, as its encoder is "
                f"{self.manifest['encoder']['name']!r}."
            )
        return read_vocabulary(path)

    def verify(self) -> None:
        """Reads all files and compares their SHA-256 with the manifest.

        Raises:
            DataError: a file differs, or cannot be read.
        """
        for name, entry in self.manifest["files"].items():
            try:
                found = manifests.sha256_of(self.path / name)
            except OSError as error:
                raise DataError(
                    f"{self.path / name}: cannot be read ({error.strerror}); prepare the data "
                    "again."
                ) from error
            if found != entry["sha256"]:
                raise DataError(
                    f"{self.path / name}: differs from what was written (SHA-256); prepare the "
                    "data again."
                )

    def _range(self, split: str) -> tuple[int, int]:
        if split not in self.splits:
            raise ValueError(f"`split` must be one of {SPLITS}. Received: split={split!r}")
        return self.splits[split]

    def _check_field(self, field: str) -> None:
        if field not in CATEGORICAL_FIELDS:
            raise ValueError(f"`field` must be one of C1..C26. Received: field={field!r}")


def read_vocabulary(path: Path) -> pa.Array:
    """Returns the categories in a vocabulary file, mapped into memory and not copied."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as file:
        table = pa.ipc.open_file(file).read_all()
    return table.column("category").combine_chunks()
