"""Our layers and optimisers in a model of the other Keras: one sentence says what to do."""

import os
import subprocess
import sys

import numpy as np
import pytest
from runtime import to_numpy

from tf_compemb import EmbeddingCollection, QREmbedding, optimizers
from tf_compemb._keras import BACKEND, LEGACY, keras, ops

if BACKEND != "tensorflow":
    pytest.skip("tf_keras runs on TensorFlow only", allow_module_level=True)

if LEGACY:
    import keras as other

    REMEDY = "unset TF_USE_LEGACY_KERAS"
else:
    import tf_keras as other

    REMEDY = "set TF_USE_LEGACY_KERAS=1 in the environment before Python starts"


def qr():
    return QREmbedding(100, 4, collisions=7)


def fit(model):
    model.compile("sgd", "mse")
    model.fit(np.arange(6).reshape(2, 3), np.zeros((2, 3, 4)), verbose=0)


def model_that_owns(make_layer, built):
    layer = make_layer()
    if built:
        layer(np.zeros((1, 3), "int64"))

    class Model(other.Model):
        def __init__(self):
            super().__init__()
            self.embedding = layer

        def call(self, ids):
            return self.embedding(ids)

    return Model()


def inputs():
    return other.Input((3,), dtype="int64")


def compile_with(optimizer):
    model = other.Sequential([other.layers.Dense(1)])
    model.compile(optimizer, "mse")


MISTAKES = {
    "Sequential of a list": lambda: other.Sequential([qr()]),
    "Sequential.add": lambda: other.Sequential().add(qr()),
    "a collection": lambda: other.Sequential([EmbeddingCollection([5, 6], 4)]),
    "functional": lambda: qr()(inputs()),
    "functional, of a dict": lambda: EmbeddingCollection({"a": 9}, 4)({"a": inputs()}),
    "functional, weights": lambda: qr()(np.zeros((2, 3), "int64"), weights=inputs()),
    "subclassed": lambda: fit(model_that_owns(qr, built=False)),
    "subclassed, of a built layer": lambda: fit(model_that_owns(qr, built=True)),
    "subclassed, eagerly": lambda: model_that_owns(qr, built=True)(np.zeros((1, 3), "int64")),
    "a wrapper": lambda: other.layers.TimeDistributed(qr()),
    "compile": lambda: compile_with(optimizers.Adagrad(0.1)),
    "optimizers.get": lambda: other.optimizers.get(optimizers.Adam(0.1)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_say_what_to_do(mistake):
    with pytest.raises((TypeError, ValueError)) as caught:
        MISTAKES[mistake]()
    text = str(caught.value)
    assert REMEDY in text
    assert f"of {'tf_keras' if LEGACY else 'Keras 3'} in this process" in text


def test_our_own_models_are_let_be():
    """Also within a function of the other Keras, and beside a model of it."""
    layer = qr()
    ids = np.arange(6).reshape(2, 3)
    expected = to_numpy(layer(ids))
    np.testing.assert_array_equal(to_numpy(ops.map(layer, ops.convert_to_tensor(ids))), expected)
    assert "process" not in str(layer)

    class Teacher(other.Model):
        def call(self, x):
            return own(x)

    own = keras.Sequential([layer])
    own.build((None, 3))
    np.testing.assert_allclose(to_numpy(Teacher()(ids.astype("float32"))), expected)


ONE_AFTER_THE_OTHER = """
import sys
for statement in sys.argv[2:]:
    exec(statement)
try:
    keras = sys.modules[sys.argv[1]]
    keras.Sequential([tf_compemb.QREmbedding(10, 4)])
except (TypeError, ValueError) as error:
    print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize("order", [("tf_compemb", "{}"), ("{}", "tf_compemb")])
def test_the_order_of_imports_does_not_matter(order):
    name = other.__name__
    statements = [f"import {module.format(name)}" for module in order]
    done = subprocess.run(
        [sys.executable, "-c", ONE_AFTER_THE_OTHER, name, *statements],
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )
    assert REMEDY in done.stdout
