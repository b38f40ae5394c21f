"""Inputs of all engines: Criteo-shaped and seeded, the same numbers in every process."""

from __future__ import annotations

import numpy as np

from tf_compemb.data.criteo_format import DENSE_FIELDS, KAGGLE_CARDINALITIES

# Enough different batches that the rows of one are not in cache when its turn comes again.
BATCHES = 16


def scaled_cardinalities(rows: int) -> list[int]:
    """The Kaggle cardinalities scaled to about `rows` ids in all, at least 2 for each field.

    >>> sum(scaled_cardinalities(1_000_000))
    1000010
    """
    total = sum(KAGGLE_CARDINALITIES)
    return [max(2, round(n * rows / total)) for n in KAGGLE_CARDINALITIES]


def id_batches(cardinalities: list[int], batch: int, seed: int = 0) -> np.ndarray:
    """Ids with a long tail, `floor(n * u^2)` for uniform u, int64 (BATCHES, batch, fields)."""
    rows = ids_of_rows(cardinalities, BATCHES * batch, seed)
    return rows.reshape(BATCHES, batch, len(cardinalities))


def ids_of_rows(cardinalities: list[int], rows: int, seed: int = 0) -> np.ndarray:
    """As `id_batches`, int64 (rows, fields)."""
    uniform = np.random.default_rng(seed).random((rows, len(cardinalities)))
    return (uniform**2 * np.asarray(cardinalities)).astype(np.int64)


def dense_batches(batch: int, seed: int = 1) -> np.ndarray:
    """Dense features, float32 (BATCHES, batch, 13)."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(BATCHES, batch, len(DENSE_FIELDS))).astype(np.float32)


def label_batches(batch: int, seed: int = 2) -> np.ndarray:
    """Labels, 0 or 1, float32 (BATCHES, batch, 1)."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, 2, size=(BATCHES, batch, 1)).astype(np.float32)


def cotangent(batch: int, vectors: int, dim: int, seed: int = 3) -> np.ndarray:
    """A gradient of the vectors, float32 (batch, vectors, dim)."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(batch, vectors, dim)) / batch).astype(np.float32)


def offsets(cardinalities: list[int]) -> np.ndarray:
    """Where each field's rows begin in one table of all fields, int64 (fields,)."""
    sizes = np.asarray(cardinalities)
    return np.cumsum(sizes) - sizes
