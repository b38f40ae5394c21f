"""DLRM of Keras layers only, for Keras 3, which tensorflow-recommenders does not know."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb._keras import keras, ops

BOTTOM_UNITS = (512, 256, 64)
TOP_UNITS = (512, 256)


class Interaction(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """Dot products of all pairs of vectors (B, V, d), no vector with itself: (B, V (V - 1) / 2)."""

    def call(self, vectors: Any) -> Any:
        """The products below the diagonal, row by row."""
        count = vectors.shape[1]
        rows, columns = np.tril_indices(count, -1)
        products = ops.matmul(vectors, ops.transpose(vectors, (0, 2, 1)))
        # Pairs are rows while they are picked, as in `tf_compemb.models.DotInteraction`.
        by_pair = ops.transpose(ops.reshape(products, (-1, count * count)))
        return ops.transpose(ops.take(by_pair, ops.convert_to_tensor(rows * count + columns), 0))


class PlainDLRM(keras.Model):  # type: ignore[misc, name-defined]
    """DLRM as `tf_compemb.models.DLRM`: dense features and ids to the logit of a click.

    Args:
        embeddings: A layer from ids (B, fields) to vectors (B, fields, d).
    """

    def __init__(self, embeddings: Any) -> None:
        super().__init__()
        self.embeddings = embeddings
        widths = (*BOTTOM_UNITS, embeddings.output_dim)
        self.bottom = [keras.layers.Dense(units, "relu") for units in widths]
        self.top = [keras.layers.Dense(units, "relu") for units in TOP_UNITS]
        self.logit = keras.layers.Dense(1)
        self.interaction = Interaction()

    def call(self, features: Any) -> Any:
        """Logits (B, 1) of dense features (B, 13) and ids (B, fields)."""
        bottom, ids = features
        for layer in self.bottom:
            bottom = layer(bottom)
        vectors = self.embeddings(ids)
        products = self.interaction(ops.concatenate([bottom[:, None, :], vectors], axis=1))
        hidden = ops.concatenate([bottom, products], axis=1)
        for layer in self.top:
            hidden = layer(hidden)
        return self.logit(hidden)


def plain_dlrm(embeddings: Any) -> PlainDLRM:
    """See `PlainDLRM`."""
    return PlainDLRM(embeddings)
