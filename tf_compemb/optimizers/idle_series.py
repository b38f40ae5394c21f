"""The steps an idle row misses under Adam and AMSGrad, summed without visiting the row.

A row that gets no gradient still moves under the dense rule: its first moment decays but is not
zero. With `m` and `v` as the row was last written at step `s`, the dense rule moves it at step
`s + j` by

    alpha[s + j] * beta_1^j * m / (sqrt(v) * q^j + epsilon),      q = sqrt(beta_2),

`alpha` being the bias-corrected learning rate (AMSGrad: `q = 1`, for its maximum of `v` stands
still while `v` only decays). With `u_j = 1 - q^j` and `rho = sqrt(v) / (sqrt(v) + epsilon)`,

    1 / (sqrt(v) * q^j + epsilon) = 1 / (sqrt(v) + epsilon) * sum_n rho^n * u_j^n,

a geometric series with `0 <= rho * u_j < 1`, so that the movement over any number of steps is

    m / (sqrt(v) + epsilon) * sum_n rho^n * C_n(s),
    C_n(s) = sum_j alpha[s + j] * beta_1^j * u_j^n.

The sums `C_n(s)` depend on no row: they are kept once for each past step `s`, whatever the
learning rate did. `u_j` is small wherever `beta_1^j` is not, so a few terms reach float precision.
"""

from __future__ import annotations

import math

import numpy as np

# Relative error allowed in a row's summed movement; float32 resolves 6e-8.
TRUNCATION_ERROR = 1e-10
# Bounds the shared table of sums: 16 MiB at this many terms. Keras' default betas need 6.
MOST_TERMS = 32


def idle_weights(beta_1: float, beta_2: float, amsgrad: bool) -> np.ndarray:
    """Weights `beta_1^j * (1 - sqrt(beta_2)^j)^n` of the step size `j` steps after a row's last.

    Args:
        beta_1: Decay of the first moment, in [0, 1).
        beta_2: Decay of the second moment, in [0, 1). Without effect for AMSGrad.
        amsgrad: Whether the denominator stands still while a row is idle.

    Returns:
        Float64 array of shape (window, terms): `j` from 1 to `window`, `n` from 0. After `window`
        idle steps a row's movement has ended; AMSGrad needs one term.

    Raises:
        ValueError: Adam's series needs more than 32 terms (`beta_2` so small that a row's
            denominator decays about as fast as its first moment).

    >>> idle_weights(0.5, 0.999, amsgrad=True)[:3, 0].tolist()
    [0.5, 0.25, 0.125]
    >>> idle_weights(0.9, 0.999, amsgrad=False).shape
    (330, 6)
    """
    root = 1.0 if amsgrad else math.sqrt(beta_2)
    ratio = beta_1 / root if root > 0 else math.inf
    if ratio >= 1:
        raise _too_slow(beta_1, beta_2)
    window = max(1, math.ceil(math.log(1e-15) / math.log(ratio))) if ratio > 0 else 1
    steps = np.arange(1, window + 1, dtype=np.float64)
    decay = beta_1**steps
    lost = 1.0 - root**steps
    terms = 1
    while _remainder(decay, lost, terms) > TRUNCATION_ERROR:
        terms += 1
        if terms > MOST_TERMS:
            raise _too_slow(beta_1, beta_2)
    return decay[:, None] * lost[:, None] ** np.arange(terms)


def _remainder(decay: np.ndarray, lost: np.ndarray, terms: int) -> float:
    """Largest relative error of the first `terms` terms: that of a row with `epsilon` = 0."""
    whole = float(np.sum(decay / (1.0 - lost)))
    return float(np.sum(decay * lost**terms / (1.0 - lost))) / whole if whole > 0 else 0.0


def _too_slow(beta_1: float, beta_2: float) -> ValueError:
    return ValueError(
        f"beta_1={beta_1} and beta_2={beta_2} leave exact Adam without a short sum for the steps "
        "that idle rows miss. Use a larger beta_2 (0.99 or more with beta_1=0.9), AMSGrad, or "
        "LazyAdam."
    )
