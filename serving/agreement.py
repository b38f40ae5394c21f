"""How far the outputs of served models agree on the same rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

PROBABILITY = "click_probability"
LOGIT = "logit"


@dataclass(frozen=True)
class Agreement:
    """Two models' outputs on the same rows.

    Attributes:
        same_weights: Whether both are exports of one trained model, perhaps of different
            precision: then their outputs have to agree. Two models that were trained apart only
            correlate, and two that were not trained at all have nothing in common. None where that
            is unknown.
        max_difference: Largest |difference| of the click probabilities.
        mean_difference: Mean |difference| of the click probabilities.
        logit_correlation: Pearson's correlation of the logits; None where it is undefined, or
            where one of the models is untrained.
    """

    same_weights: bool | None
    max_difference: float
    mean_difference: float
    logit_correlation: float | None


def agreement(
    reference: dict[str, np.ndarray],
    other: dict[str, np.ndarray],
    *,
    same_weights: bool | None,
    trained: bool,
) -> Agreement:
    """Compares two models' outputs.

    Args:
        reference: `click_probability` and `logit` of one model, `[rows, 1]` each.
        other: Those of the other model, on the same rows.
        same_weights: Whether both come from the same training run; None if unknown.
        trained: Whether both models were trained, as far as is known.

    >>> one = {"click_probability": np.array([0.25, 0.5]), "logit": np.array([-1.1, 0.0])}
    >>> two = {"click_probability": np.array([0.25, 0.25]), "logit": np.array([-1.1, -1.2])}
    >>> agreement(one, two, same_weights=False, trained=False).max_difference
    0.25
    """
    first, second = (np.asarray(x[PROBABILITY], np.float64).ravel() for x in (reference, other))
    difference = np.abs(first - second)
    return Agreement(
        same_weights,
        float(difference.max()),
        float(difference.mean()),
        _correlation(reference[LOGIT], other[LOGIT]) if trained else None,
    )


def _correlation(first: Any, second: Any) -> float | None:
    first, second = (np.asarray(x, np.float64).ravel() for x in (first, second))
    if len(first) < 2 or first.std() == 0 or second.std() == 0:
        return None
    return float(np.corrcoef(first, second)[0, 1])
