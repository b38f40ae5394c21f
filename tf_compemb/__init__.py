"""Memory-efficient embeddings for recommender systems in TensorFlow and Keras.

Importing this package imports neither Keras nor a backend; the first use of a layer does, and it
is the environment (`KERAS_BACKEND`, `TF_USE_LEGACY_KERAS`) that decides which.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tf_compemb._first_use import names_on_first_use
from tf_compemb.saved_classes import find_in_saved_models

__version__ = "0.1.0.dev0"

if TYPE_CHECKING:
    from tf_compemb import partitions as partitions
    from tf_compemb.collection import EmbeddingCollection as EmbeddingCollection
    from tf_compemb.footprint import Footprint as Footprint
    from tf_compemb.layers import *  # noqa: F403  Each of its lines would stand here again.

_HOMES = {
    "EmbeddingCollection": "collection",
    "Footprint": "footprint",
    **dict.fromkeys(("data", "layers", "models", "optimizers", "partitions", "storage")),
}

# With every layer, and `__all__`.
__getattr__, __dir__ = names_on_first_use(__name__, _HOMES, classes="layers")

find_in_saved_models()
