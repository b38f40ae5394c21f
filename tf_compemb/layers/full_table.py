"""The full table: the oracle and baseline of every method, by the same contract."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb.layers.compositional._partitioned import PartitionedEmbedding
from tf_compemb.layers.registry import method
from tf_compemb.partitions import Naive


@method("full")
class FullEmbedding(PartitionedEmbedding):
    """Full table: one row an id, as `keras.layers.Embedding`.

    Formula: `e(i) = W[i]`.
    Parameters: `n * d`, `n = input_dim`, `d = output_dim`.
    Served as: the table, float32.
    Does not give: compression. It differs from Keras' own layer in its initialisation,
        U(-1/sqrt(n), 1/sqrt(n)) as in DLRM, and in what wrong ids do.
    Reference: Shi et al. 2020, https://arxiv.org/abs/1909.02107, section 3.1 (naive partition).

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = FullEmbedding(input_dim=1000, output_dim=8)
    >>> tuple(layer(np.array([[1, 2], [3, 999]])).shape)
    (2, 2, 8)
    >>> layer.footprint().parameters
    8000
    """

    def __init__(self, input_dim: int, output_dim: int, **kwargs: Any) -> None:
        super().__init__(
            input_dim, output_dim, partitions=[Naive()], table_names=["embeddings"], **kwargs
        )

    def start_from(self, table: np.ndarray) -> None:
        """The table itself."""
        self.embeddings.assign(table)
