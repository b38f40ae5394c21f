"""How well the model that generated the labels itself predicts them: nothing can do better."""

from __future__ import annotations

import numpy as np

_BINS = 1 << 16


class BestAchievable:
    """Adds up AUC and log loss of known click probabilities, in memory that does not grow.

    The probabilities are ranked by 65,536 equal bins; rows of one bin count as ties, which moves
    the AUC by less than 0.00002.

    >>> best = BestAchievable()
    >>> best.add(np.array([0.1, 0.9, 0.5, 0.5]), np.array([False, True, False, True]))
    >>> best.result()
    {'auc': 0.875, 'log_loss': 0.399254}
    """

    def __init__(self) -> None:
        self._counts = np.zeros((2, _BINS), dtype=np.int64)
        self._loss = 0.0

    def add(self, probability: np.ndarray, label: np.ndarray) -> None:
        """Adds rows: probabilities, float64 `[rows]`, and labels, bool `[rows]`."""
        bins = np.minimum((probability * _BINS).astype(np.int64), _BINS - 1)
        for value in (0, 1):
            self._counts[value] += np.bincount(bins[label == value], minlength=_BINS)
        self._loss -= float(np.log(np.where(label, probability, 1 - probability)).sum())

    def result(self) -> dict[str, float | None]:
        """The AUC (None where only one label occurs) and mean log loss, to 6 digits."""
        negative, positive = self._counts
        rows = int(self._counts.sum())
        below = np.cumsum(negative) - negative
        pairs = int(negative.sum()) * int(positive.sum())
        wins = float((positive * (below + negative / 2)).sum())
        return {
            "auc": round(wins / pairs, 6) if pairs else None,
            "log_loss": round(self._loss / rows, 6) if rows else None,
        }
