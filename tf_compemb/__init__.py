"""Memory-efficient embeddings for recommender systems in TensorFlow and Keras.

Importing this package imports neither Keras nor a backend; the first use of a layer does, and it
is the environment (`KERAS_BACKEND`, `TF_USE_LEGACY_KERAS`) that decides which.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from tf_compemb import partitions as partitions
    from tf_compemb.collection import EmbeddingCollection as EmbeddingCollection
    from tf_compemb.footprint import Footprint as Footprint
    from tf_compemb.layers import CompositionalEmbedding as CompositionalEmbedding
    from tf_compemb.layers import CompressedEmbedding as CompressedEmbedding
    from tf_compemb.layers import FullEmbedding as FullEmbedding
    from tf_compemb.layers import HashEmbedding as HashEmbedding
    from tf_compemb.layers import PathEmbedding as PathEmbedding
    from tf_compemb.layers import QREmbedding as QREmbedding

_HOMES = {
    "CompositionalEmbedding": "tf_compemb.layers",
    "CompressedEmbedding": "tf_compemb.layers",
    "EmbeddingCollection": "tf_compemb.collection",
    "Footprint": "tf_compemb.footprint",
    "FullEmbedding": "tf_compemb.layers",
    "HashEmbedding": "tf_compemb.layers",
    "PathEmbedding": "tf_compemb.layers",
    "QREmbedding": "tf_compemb.layers",
}
_SUBPACKAGES = ("data", "layers", "models", "optimizers", "partitions", "storage")

__all__ = [*_HOMES, *_SUBPACKAGES]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    if name in _SUBPACKAGES:
        return importlib.import_module(f"tf_compemb.{name}")
    raise AttributeError(f"module 'tf_compemb' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
