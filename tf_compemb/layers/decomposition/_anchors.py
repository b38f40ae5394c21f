"""Anchors of a trained table by k-means, and its rows as sparse combinations of them."""

from __future__ import annotations

import numpy as np

# Rows that the anchors are found from, if a table has more.
_SAMPLE_ROWS = 2**16
_ROUNDS = 25
_CHUNK = 2**16
# Of coordinate descent, after each further anchor of a row.
_SWEEPS = 8


def anchors_of(table: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Means of `count` clusters of rows, float32 (count, width): Lloyd's algorithm.

    It starts from rows far apart (greedy k-means++, Arthur & Vassilvitskii 2007). With fewer
    different rows than clusters, the anchors that are left are copies.

    Args:
        table: Float32 (rows, width).
        count: How many anchors.
        seed: Chooses the rows to start from.
    """
    rng = np.random.default_rng(seed)
    rows = table
    if len(rows) > _SAMPLE_ROWS:
        rows = rows[np.sort(rng.choice(len(rows), _SAMPLE_ROWS, replace=False))]
    anchors = _far_apart(rows.astype("float64"), count, rng)
    for _ in range(_ROUNDS):
        nearest = squared_distances(rows, anchors).argmin(axis=1)
        members = np.bincount(nearest, minlength=count)
        sums = np.zeros_like(anchors)
        np.add.at(sums, nearest, rows)
        moved = np.where(members[:, None] > 0, sums / np.maximum(members, 1)[:, None], anchors)
        if np.array_equal(moved, anchors):
            break
        anchors = moved
    return anchors.astype("float32")


def squared_distances(rows: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Squared distances (rows, anchors)."""
    lengths = (rows**2).sum(axis=1)[:, None] + (anchors**2).sum(axis=1)
    return np.maximum(lengths - 2 * rows @ anchors.T, 0)


def _far_apart(rows: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Rows drawn in proportion to their squared distance to those before, the best of a few."""
    chosen = [rows[rng.integers(len(rows))]]
    distance = squared_distances(rows, chosen[0][None])[:, 0]
    candidates = 2 + int(np.log(count))
    while len(chosen) < count:
        total = distance.sum()
        law = distance / total if total > 0 else None
        drawn = rows[rng.choice(len(rows), candidates, p=law)]
        left = np.minimum(distance[:, None], squared_distances(rows, drawn))
        best = left.sum(axis=0).argmin()
        chosen.append(drawn[best])
        distance = left[:, best]
    return np.stack(chosen)


def combinations_of(table: np.ndarray, anchors: np.ndarray, nonzeros: int) -> np.ndarray:
    """Non-negative numbers (rows, anchors), at most `nonzeros` a row, whose products are near rows.

    Anchors are taken one after the other, the one by which most of the squared error goes, and
    after each the numbers are fitted again (orthogonal matching pursuit without negative numbers).
    """
    found = np.zeros((len(table), len(anchors)), "float32")
    for start in range(0, len(table), _CHUNK):
        rows = table[start : start + _CHUNK].astype("float64")
        found[start : start + _CHUNK] = _pursuit(rows, anchors.astype("float64"), nonzeros)
    return found


def _pursuit(rows: np.ndarray, anchors: np.ndarray, nonzeros: int) -> np.ndarray:
    products, inner = anchors @ anchors.T, rows @ anchors.T
    squares = np.maximum(np.diag(products), 1e-30)
    weights = np.zeros_like(inner)
    is_taken = np.zeros(inner.shape, bool)
    for _ in range(nonzeros):
        left = inner - weights @ products
        gain = np.where(is_taken, 0, np.maximum(left, 0) ** 2 / squares)
        best = gain.argmax(axis=1)
        is_taken[np.arange(len(rows)), best] |= gain.max(axis=1) > 0
        for _ in range(_SWEEPS):
            for k in range(len(anchors)):
                left_k = inner[:, k] - weights @ products[:, k]
                fitted = np.maximum(weights[:, k] + left_k / squares[k], 0)
                weights[:, k] = np.where(is_taken[:, k], fitted, 0)
    return weights
