"""Collections whose vectors are rows or products of rows, and batches for them."""

import numpy as np
import tensorflow as tf
from runtime import randomize

from tf_compemb import EmbeddingCollection

SIZES = [43, 17, 3001, 653, 9, 2, 371]
METHODS = {
    "full": ("full", {}),
    "hash": ("hash", {"collisions": 4}),
    "hash by 40": ("hash", {"collisions": 40}),
    "qr by 4": ("qr", {"collisions": 4}),
    "qr by 7": ("qr", {"collisions": 7}),
    "crt": ("compositional", {"partitions": 2, "family": "chinese_remainder"}),
    "three digits": ("compositional", {"partitions": 3, "family": "mixed_radix"}),
}


def collection(method, seed=0):
    """A collection of 8 numbers a vector by the name of a method, with random values."""
    name, options = METHODS[method]
    layer = EmbeddingCollection(SIZES, 8, name, options=options)
    layer.build()
    randomize(layer, seed)
    return layer


def batch(rows):
    """Ids, and a gradient of their vectors."""
    rng = np.random.default_rng(rows)
    ids = np.stack([rng.integers(0, size, rows) for size in SIZES], axis=1)
    return tf.constant(ids), tf.constant(rng.normal(size=(*ids.shape, 8)).astype("float32"))
