"""Large tables are drawn in place and adopted without a copy: same law, same training."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runtime import to_numpy as values

from tf_compemb import EmbeddingCollection, FullEmbedding
from tf_compemb._keras import BACKEND, keras
from tf_compemb.storage import in_place
from tf_compemb.storage.uniform_rows import UniformRows

ROWS, WIDTH = 70_000, 16  # More numbers than one chunk has.


@pytest.fixture
def every_table_is_large(monkeypatch):
    monkeypatch.setattr(in_place, "LARGE_TABLE", 1)


def drawn(seed=7, groups=((ROWS, 0.5),)):
    keras.utils.set_random_seed(seed)
    return values(UniformRows(groups)((sum(rows for rows, _ in groups), WIDTH), "float32"))


def test_numbers_have_the_uniform_law(every_table_is_large):
    numbers = drawn()
    assert numbers.shape == (ROWS, WIDTH)
    assert numbers.dtype == np.float32
    assert np.abs(numbers).max() <= 0.5
    # Standard errors over 1.1 million numbers: 2.7e-4 for the mean, 7e-5 for the variance.
    assert abs(numbers.mean()) < 1.5e-3
    assert abs(numbers.var() - 1 / 12) < 4e-4
    assert len(np.unique(numbers[:, 0])) > 0.99 * ROWS  # No chunk repeats another.


def test_a_seed_gives_the_same_numbers_and_another_seed_others(every_table_is_large):
    np.testing.assert_array_equal(drawn(seed=1), drawn(seed=1))
    assert (drawn(seed=1) != drawn(seed=2)).mean() > 0.99


def test_each_group_has_its_own_limit(every_table_is_large):
    numbers = drawn(groups=((100, 1.0), (ROWS, 0.01), (50, 0.0)))
    largest = [np.abs(part).max() for part in np.split(numbers, [100, 100 + ROWS])]
    assert 0.9 < largest[0] <= 1.0
    assert 0.0099 < largest[1] <= 0.01
    assert largest[2] == 0


def test_a_table_under_the_bound_keeps_keras_own_draw():
    keras.utils.set_random_seed(3)
    expected = values(keras.initializers.RandomUniform(-0.5, 0.5)((ROWS, WIDTH)))
    np.testing.assert_array_equal(drawn(seed=3), expected)


def test_a_fused_collection_draws_all_its_fields(every_table_is_large):
    collection = EmbeddingCollection([10_000, 40], 4, "full", fused=True)
    collection.build((None, 2))
    ids = np.stack([np.arange(10_000), np.arange(10_000) % 40], axis=1)
    vectors = values(collection(ids))
    assert 0.0099 < np.abs(vectors[:, 0]).max() <= 0.01
    assert 0.15 < np.abs(vectors[:, 1]).max() <= 1 / np.sqrt(40)


def test_an_adopted_table_trains_like_any_other(every_table_is_large):
    layer = FullEmbedding(1000, 4)
    model = keras.Sequential([layer, keras.layers.Flatten(), keras.layers.Dense(1)])
    ids, target = np.arange(64).reshape(32, 2), np.ones((32, 1))
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.build((None, 2))
    before = values(layer(np.arange(1000)))
    model.fit(ids, target, epochs=2, verbose=0)
    after = values(layer(np.arange(1000)))
    assert (after[:64] != before[:64]).any(axis=1).all()
    np.testing.assert_array_equal(after[64:], before[64:])


def test_a_large_table_is_never_copied():
    """TensorFlow copies memory that it does not own before it first reads rows of a variable."""
    if BACKEND != "tensorflow":
        pytest.skip("needs the TensorFlow backend")
    program = """
import re
import tensorflow as tf
from tf_compemb import FullEmbedding

def megabytes(name):
    return int(re.search(name + r":\\s+(\\d+)", open("/proc/self/status").read())[1]) / 1024

FullEmbedding(2**22, 2).build()
tf.gather(tf.Variable(tf.zeros((10, 2))), [0])  # Whatever starts with the first operations.
before = megabytes("VmRSS")
layer = FullEmbedding(2**22, 16)
layer.build()
table = getattr(layer.embeddings, "value", None)
table = layer.embeddings if callable(table) else table  # Keras 3 wraps it
table.scatter_update(tf.IndexedSlices(tf.gather(table, [7]) + 1, [7]))
print(megabytes("VmHWM") - before)
"""
    if not Path("/proc/self/status").exists():
        pytest.skip("needs /proc")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert 250 < float(done.stdout) < 350  # The table has 268 MB, which are 256 MiB.
