"""Rows to check an export with: a run's own test rows, or generated ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tf_compemb.data.criteo_format import transform_dense

_UNKNOWN = "a category that no vocabulary holds"


@dataclass(frozen=True)
class SampleRows:
    """Rows of features, and raw rows with the features that the data pipeline makes of them.

    Attributes:
        features: `dense` and `categorical`, as a model takes them.
        raw: `integers` and `categories`, as the raw signature takes them; None without an encoder.
        encoded: The features of the raw rows.
        source: What the features are, for people to read.
    """

    features: dict[str, np.ndarray]
    raw: dict[str, np.ndarray] | None
    encoded: dict[str, np.ndarray] | None
    source: str


def sample_rows(
    cardinalities: Sequence[int],
    dense_features: int,
    numbering: Any | None,
    data: Any | None,
    rows: int = 256,
) -> SampleRows:
    """Rows for a check.

    Args:
        cardinalities: Ids of each field.
        dense_features: Width of the dense input.
        numbering: The encoder, see `raw_encoder.encoder_module`; None for none.
        data: A `PreparedDataset` whose test rows to take; None generates rows.
        rows: How many.
    """
    numbers = _integers(rows, dense_features)
    ids = _ids(cardinalities, rows)
    features = {"dense": transform_dense(numbers), "categorical": ids}
    source = f"{rows} generated rows"
    if data is not None and data.split_size("test"):
        features, _ = data.arrays("test", stop=rows)
        features = {**features, "categorical": features["categorical"].astype(np.int64)}
        ids = features["categorical"]
        source = f"{len(ids)} test rows of the run"
    if numbering is None:
        return SampleRows(features, None, None, source)
    numbers = numbers[: len(ids)]
    categories, encoded_ids = _categories(numbering, cardinalities, ids)
    text = numbers.astype(str).astype(object)
    text[numbers == 0] = ""  # Missing, which is what 0 is encoded like.
    return SampleRows(
        features,
        {"integers": text, "categories": categories},
        {"dense": transform_dense(numbers), "categorical": encoded_ids},
        source,
    )


def _integers(rows: int, width: int) -> np.ndarray:
    """Integers up to a million, as in Criteo's logs, with negative ones and zeros among them."""
    rng = np.random.default_rng(0)
    numbers = np.floor(10 ** rng.uniform(0, 6, (rows, width))).astype(np.int64)
    choice = rng.random((rows, width))
    numbers[choice < 0.6] %= 1000
    numbers[choice < 0.2] = 0
    numbers[choice < 0.1] = -3
    return numbers


def _ids(cardinalities: Sequence[int], rows: int) -> np.ndarray:
    """Random ids of each field; the first three rows have its first, second and last."""
    rng = np.random.default_rng(1)
    highest = np.asarray(cardinalities, dtype=np.int64)
    ids = rng.integers(0, highest, size=(rows, len(highest)))
    ids[:3] = np.stack([np.zeros_like(highest), np.minimum(1, highest - 1), highest - 1])[:rows]
    return ids


def _categories(
    numbering: Any, cardinalities: Sequence[int], ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Strings for a vocabulary's ids, or any strings, and the ids that the pipeline gives them."""
    if numbering.manifest["encoder"]["name"] != "vocabulary":
        return _hashed_categories(cardinalities, ids)
    import pyarrow as pa

    from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS

    columns = []
    for field, column in zip(CATEGORICAL_FIELDS, ids.T, strict=True):
        known = numbering.vocabulary(field)
        # Where the vocabulary is empty there is nothing to take.
        positions = pa.array(np.maximum(column - 1, 0), mask=column == 0)
        columns.append(known.take(positions).fill_null(_UNKNOWN).to_pylist())
    return np.array(columns, dtype=object).T, ids


def _hashed_categories(
    cardinalities: Sequence[int], ids: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    import pyarrow as pa

    from tf_compemb.data.encoders import hash_ids

    categories = np.vectorize(lambda i: f"{i:08x}", otypes=[object])(ids)
    categories[0] = ""
    columns = [
        hash_ids(pa.array(column.tolist(), pa.string()), n)
        for column, n in zip(categories.T, cardinalities, strict=True)
    ]
    return categories, np.stack(columns, axis=1)
