"""Layers that ours are compared with, in the same form: ids (B, fields) to (B, fields, d)."""

from __future__ import annotations

from typing import Any

import numpy as np

from tf_compemb._keras import keras, ops
from tf_compemb.benchmark.inputs import offsets


class Tables(keras.layers.Layer):  # type: ignore[misc, name-defined]
    """Base: what the click models ask of embeddings.

    Args:
        sizes: Ids of each field.
        dim: Width of the vectors.
    """

    def __init__(self, sizes: list[int], dim: int) -> None:
        super().__init__()
        self.cardinalities = {f"field_{i}": n for i, n in enumerate(sizes)}
        self.num_vectors = len(sizes)
        self.output_dim = dim

    def compute_output_shape(self, input_shape: Any) -> tuple:
        """(batch, fields, dim)."""
        return (input_shape[0], self.num_vectors, self.output_dim)


class StockTables(Tables):
    """One `keras.layers.Embedding` for each field."""

    def __init__(self, sizes: list[int], dim: int) -> None:
        super().__init__(sizes, dim)
        self.tables = [keras.layers.Embedding(n, dim) for n in sizes]

    def call(self, ids: Any) -> Any:
        """Looks each field up in its own table."""
        return ops.stack([table(ids[:, i]) for i, table in enumerate(self.tables)], axis=1)


class StockOneTable(Tables):
    """One `keras.layers.Embedding` for all fields, whose rows follow each other."""

    def __init__(self, sizes: list[int], dim: int) -> None:
        super().__init__(sizes, dim)
        self.table = keras.layers.Embedding(sum(sizes), dim)
        self._offsets = offsets(sizes)

    def call(self, ids: Any) -> Any:
        """Looks all fields up at once."""
        return self.table(ids + ops.convert_to_tensor(self._offsets, dtype=ids.dtype))


class NoTables(Tables):
    """Constant vectors: a model over it is the network alone."""

    def __init__(self, sizes: list[int], dim: int) -> None:
        super().__init__(sizes, dim)
        rng = np.random.default_rng(0)
        self._row = rng.normal(size=(1, len(sizes), dim)).astype(np.float32)

    def call(self, ids: Any) -> Any:
        """The same vectors for every row."""
        return ops.tile(ops.convert_to_tensor(self._row), (ops.shape(ids)[0], 1, 1))


class KerasRsTables(Tables):
    """`keras_rs.layers.DistributedEmbedding` on the default device: one table for each field."""

    def __init__(self, sizes: list[int], dim: int, batch: int) -> None:
        import keras_rs

        super().__init__(sizes, dim)
        features = {}
        for name, n in self.cardinalities.items():
            table = keras_rs.layers.TableConfig(
                name=f"table_{name}",
                vocabulary_size=n,
                embedding_dim=dim,
                combiner="sum",
                placement="default_device",
            )
            features[name] = keras_rs.layers.FeatureConfig(
                name=name, table=table, input_shape=(batch,), output_shape=(batch, dim)
            )
        self.tables = keras_rs.layers.DistributedEmbedding(features)

    def call(self, ids: Any) -> Any:
        """Looks each field up in its own table."""
        vectors = self.tables({name: ids[:, i] for i, name in enumerate(self.cardinalities)})
        return ops.stack([vectors[name] for name in self.cardinalities], axis=1)


def stock_tables(sizes: list[int], dim: int, batch: int) -> Tables:
    """See `StockTables`."""
    del batch
    return StockTables(sizes, dim)


def stock_one_table(sizes: list[int], dim: int, batch: int) -> Tables:
    """See `StockOneTable`."""
    del batch
    return StockOneTable(sizes, dim)


def no_tables(sizes: list[int], dim: int, batch: int) -> Tables:
    """See `NoTables`."""
    del batch
    return NoTables(sizes, dim)


def keras_rs_tables(sizes: list[int], dim: int, batch: int) -> Tables:
    """See `KerasRsTables`."""
    return KerasRsTables(sizes, dim, batch)
