"""Methods whose vectors are computed from factors, which a table can stand for in service."""

from __future__ import annotations

import dataclasses

import numpy as np

from tf_compemb._keras import LEGACY, id_dtype, ops
from tf_compemb.footprint import Footprint
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.full_table import FullEmbedding

# So many vectors at a time are computed for a table.
_CHUNK = 2**16


class FoldedEmbedding(CompressedEmbedding):
    """Base of methods that serve their factors, or all vectors as a table where that is smaller.

    A method whose factors have a smaller form in service overrides `factor_bytes` and
    `served_factors`.
    """

    @property
    def table_bytes(self) -> int:
        """Bytes of all vectors in float32."""
        return 4 * self.input_dim * self.output_dim

    @property
    def factor_bytes(self) -> int:
        """Bytes of the factors in service."""
        return super().footprint().training_bytes

    def served_factors(self) -> CompressedEmbedding:
        """The layer that serves the factors."""
        return self

    def footprint(self) -> Footprint:
        """Parameters and bytes, from the hyper-parameters alone."""
        served = min(self.factor_bytes, self.table_bytes)
        return dataclasses.replace(super().footprint(), inference_bytes=served)

    def for_inference(self) -> CompressedEmbedding:
        """The factors, or a `FullEmbedding` of their vectors where that is no larger."""
        self.build(None)
        return self.served_factors() if self.factor_bytes < self.table_bytes else folded(self)


def folded(layer: CompressedEmbedding) -> FullEmbedding:
    """A full table of a built layer's vectors, which equal the layer's to float32 rounding."""
    table = FullEmbedding(
        layer.input_dim,
        layer.output_dim,
        combiner=layer.combiner,
        mask_zero=layer.mask_zero,
        name=layer.name,
        dtype=layer._dtype_policy if LEGACY else layer.dtype_policy,
        embeddings_initializer="zeros",
    )
    table.build(None)
    table.embeddings.assign(all_vectors(layer))
    return table


def all_vectors(layer: CompressedEmbedding) -> np.ndarray:
    """The vectors of all ids, float32 (input_dim, output_dim)."""
    vectors = np.empty((layer.input_dim, layer.output_dim), "float32")
    for start in range(0, layer.input_dim, _CHUNK):
        ids = np.arange(start, min(start + _CHUNK, layer.input_dim))
        chunk = layer.lookup(ops.convert_to_tensor(ids, dtype=id_dtype()))
        vectors[ids] = ops.convert_to_numpy(ops.cast(chunk, "float32"))
    return vectors
