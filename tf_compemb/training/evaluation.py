"""Quality of predictions: exact AUC, cross entropy, accuracy, over a whole split."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb import native_kernels


def exact_auc(labels: np.ndarray, scores: np.ndarray) -> float:
    """Area under the ROC curve: how often a click scores above a non-click, ties counting half.

    The rank formula of Mann and Whitney, exact for any number of rows, unlike the buckets of
    `keras.metrics.AUC`.

    Args:
        labels: 0 or 1, shape (rows,).
        scores: Any numbers that order the rows, shape (rows,).

    Returns:
        A number in [0, 1]; NaN where only one kind of label occurs, or a score is NaN.

    >>> exact_auc(np.array([0, 0, 1, 1]), np.array([0.1, 0.4, 0.4, 0.8]))
    0.875
    """
    positive = labels > 0.5
    clicks = int(positive.sum())
    others = labels.size - clicks
    if clicks == 0 or others == 0 or np.isnan(scores).any():
        return float("nan")
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    mean_ranks = np.cumsum(sizes) - (sizes - 1) / 2  # Ranks from 1; a tie's rows share their mean.
    rank_sum = mean_ranks[group.reshape(-1)][positive].sum()
    return float((rank_sum - clicks * (clicks + 1) / 2) / (clicks * others))


def mean_cross_entropy(labels: np.ndarray, logits: np.ndarray) -> float:
    """Mean binary cross entropy in nats, from logits in float64.

    >>> round(mean_cross_entropy(np.array([1.0, 0.0]), np.array([0.0, -1000.0])), 4)
    0.3466
    """
    logits = logits.astype(np.float64)
    with np.errstate(invalid="ignore"):  # The mean says it, where a logit is NaN.
        return float(np.mean(np.logaddexp(0.0, logits) - labels * logits))


def quality(labels: np.ndarray, logits: np.ndarray) -> dict[str, Any]:
    """`loss` (nats), `auc` and `accuracy` (share of right predictions at probability 1/2).

    `auc` is None where only one kind of label occurs; all are None where there are no rows. Where a
    logit is NaN, loss and accuracy are NaN and `auc` is None.
    """
    if not labels.size:
        return {"loss": None, "auc": None, "accuracy": None}
    area = exact_auc(labels, logits)
    right = np.where(np.isnan(logits), np.nan, (logits > 0) == (labels > 0.5))
    return {
        "loss": mean_cross_entropy(labels, logits),
        "auc": None if np.isnan(area) else area,
        "accuracy": float(np.mean(right)),
    }


class Evaluator:
    """Evaluates a model over data sets, with one traced graph.

    Args:
        model: A built `ClickModel`, made under the current distribution strategy.
    """

    def __init__(self, model: Any) -> None:
        import tensorflow as tf

        self._predict = tf.function(
            lambda features: model(features, training=False),
            reduce_retracing=True,
            autograph=False,  # Nothing to rewrite; tracing takes half the time.
        )

    def __call__(self, batches: Any) -> dict[str, Any]:
        """`quality` over batches of ({"dense", "categorical"}, labels)."""
        labels, logits = [np.zeros(0)], [np.zeros(0)]
        with native_kernels.in_inference():
            for features, batch_labels in batches:
                logits.append(self._predict(features).numpy().reshape(-1))
                labels.append(batch_labels.numpy().reshape(-1))
        return quality(np.concatenate(labels), np.concatenate(logits))
