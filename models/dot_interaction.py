"""Dot products of all pairs of vectors, DLRM's feature interaction."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from tf_compemb._keras import keras, register


@register
class DotInteraction(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """Dot products of all pairs of a row's vectors, no vector with itself.

    The numbers, and their order, are those of `tfrs.layers.feature_interaction.DotInteraction`,
    which picks the pairs by a mask: on a CPU that and its gradient take twice the time.

    Input: floats (B, V, d), B rows of V vectors. Output: (B, V (V - 1) / 2), the products
    of vector 1 with 0, of 2 with 0 and 1, of 3 with 0, 1 and 2, and so on.

    Reference: Naumov et al. 2019, section 2.1.3, https://arxiv.org/abs/1906.00091.

    >>> layer = DotInteraction()
    >>> layer(tf.constant([[[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]])).numpy().tolist()
    [[11.0, 17.0, 39.0]]
    """

    def call(self, vectors: tf.Tensor) -> tf.Tensor:
        """The products of vectors (B, V, d)."""
        count = vectors.shape[1]
        first, second = np.tril_indices(count, -1)
        products = tf.matmul(vectors, vectors, transpose_b=True)
        # Pairs are rows while they are picked: TensorFlow copies rows whole, numbers one by one.
        by_pair = tf.transpose(tf.reshape(products, [-1, count * count]))
        return tf.transpose(tf.gather(by_pair, first * count + second))

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, int]:
        """(B, V (V - 1) / 2) of (B, V, d)."""
        rows, count, _ = input_shape
        return rows, count * (count - 1) // 2
