"""Any registered method at a share of the full tables' bytes, as the leaderboard sizes it."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb.benchmark import inputs
from tf_compemb.benchmark.engines import UnavailableError

# Rows that tell a method how frequent ids are and which occur together.
_SAMPLE_ROWS = 20_000


def budgeted_layer(method: str, sizes: list[int], dim: int, divisor: int) -> Any:
    """An `EmbeddingCollection` with the bytes of all full tables over `divisor`.

    Raises:
        UnavailableError: The method cannot be so small.
    """
    from tf_compemb import EmbeddingCollection
    from tf_compemb.experiments.budgets import BudgetError, overrides_within
    from tf_compemb.training.options import TrainingOptions

    if method == "full":
        return EmbeddingCollection(sizes, dim)
    options = TrainingOptions(embedding=(method,), dim=dim)
    try:
        overrides = overrides_within(options, sizes, divisor, full_share=0.1)
    except BudgetError as error:
        raise UnavailableError(str(error)) from error
    names = {name: f for f, name in enumerate(overrides)}
    sample = inputs.ids_of_rows(sizes, _SAMPLE_ROWS)
    return EmbeddingCollection(
        dict(zip(overrides, sizes, strict=True)),
        dim,
        method,
        overrides=overrides,
        frequencies=lambda name: np.bincount(sample[:, names[name]], minlength=sizes[names[name]]),
        sampled_ids=lambda name: sample[:, names[name]],
    )
