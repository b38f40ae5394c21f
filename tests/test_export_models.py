"""Models in memory, of either Keras: names, types, batches, forms, refusals."""

import json

import numpy as np
import pytest
from runtime import randomize, to_numpy

from tf_compemb import EmbeddingCollection, FullEmbedding, QREmbedding, optimizers
from tf_compemb._keras import BACKEND, LEGACY, keras
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.storage.table import TableSpec

if BACKEND != "tensorflow":
    pytest.skip("a SavedModel is TensorFlow's", allow_module_level=True)

import tensorflow as tf

from tf_compemb.export import ExportError, checks, saved_model, tflite
from tf_compemb.export.serving_module import ServingModule
from tf_compemb.export.sizes import stored_bytes
from tf_compemb.native_session import NativeSession


def two_towers():
    user = keras.Input((2,), dtype="int32", name="user")
    price = keras.Input((1,), name="price")
    vectors = keras.layers.Flatten()(QREmbedding(100, 4, collisions=7, name="users")(user))
    joined = keras.layers.Concatenate()([vectors, price])
    return keras.Model([user, price], keras.layers.Dense(1)(keras.layers.Dense(3)(joined)))


def test_functional_model_keeps_names_and_types_in_any_batch(tmp_path):
    model = two_towers()
    path = saved_model(model, tmp_path / "towers")
    with NativeSession(path) as session:
        signature = session.signatures["serving_default"]
        assert {k: (v.dtype, v.shape) for k, v in signature.inputs.items()} == {
            "user": ("int32", (None, 2)),
            "price": ("float32", (None, 1)),
        }
        for rows in (1, 7, 64):
            user = np.arange(2 * rows, dtype="int32").reshape(rows, 2) % 100
            price = np.linspace(0, 1, rows, dtype="float32")[:, None]
            found = session.run("serving_default", {"user": user, "price": price})["outputs"]
            expected = to_numpy(model([user, price]))
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_no_optimizer_no_metric_and_tables_up_to_date(tmp_path):
    """An exact row optimiser leaves idle rows behind, which the export must not."""
    model = two_towers()
    optimizer = optimizers.get("adam", 0.1)
    model.compile(optimizer, "mse", metrics=["mae"])
    ids = np.arange(8).reshape(4, 2)
    model.fit([ids, np.ones((4, 1))], np.ones((4, 1)), epochs=1, verbose=0)
    model.fit([ids + 50, np.ones((4, 1))], np.ones((4, 1)), epochs=3, verbose=0)
    path = saved_model(model, tmp_path / "trained")
    # (7 + 15) rows of 4; kernels and biases of 9 x 3 and 3 x 1.
    assert sum(stored_bytes(path).values()) == 4 * (22 * 4 + 9 * 3 + 3 + 3 + 1)
    expected = to_numpy(model([ids, np.ones((4, 1), "float32")]))
    with NativeSession(path) as session:
        given = {"user": ids.astype("int32"), "price": np.ones((4, 1), "float32")}
        found = session.run("serving_default", given)["outputs"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_sequential_built_by_a_call_takes_integers(tmp_path):
    model = keras.Sequential([QREmbedding(1000, 4), keras.layers.Flatten(), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    model.fit(np.array([[1, 2], [3, 999]]), np.zeros((2, 1)), verbose=0)
    with NativeSession(saved_model(model, tmp_path / "sequential")) as session:
        signature = session.signatures["serving_default"]
        assert {k: v.dtype for k, v in signature.inputs.items()} == {"inputs": "int64"}
        assert list(signature.outputs) == ["outputs"]


class Subclass(keras.Model):
    def __init__(self):
        super().__init__()
        self.collection = EmbeddingCollection({"a": 50, "b": 9000}, 4, "qr")

    def call(self, inputs):
        return {"sum": tf.reduce_sum(self.collection(inputs), axis=[1, 2])}


def test_subclass_needs_inputs_and_keeps_its_outputs_names(tmp_path):
    model = Subclass()
    model(np.array([[1, 2]]))
    if not LEGACY:
        with pytest.raises(ExportError, match="pass `inputs` with the name, type and shape"):
            saved_model(model, tmp_path / "subclass")
    inputs = {"ids": tf.TensorSpec([None, 2], tf.int64)}
    path = saved_model(model, tmp_path / "subclass", inputs=inputs)
    with NativeSession(path) as session:
        found = session.run("serving_default", {"ids": np.array([[49, 8999], [0, 0]])})
    expected = to_numpy(model(np.array([[49, 8999], [0, 0]]))["sum"])
    np.testing.assert_allclose(found["sum"], expected, rtol=1e-6)


def test_an_id_out_of_range_is_refused_by_the_served_graph(tmp_path):
    model = keras.Sequential(
        [keras.Input((1,), dtype="int64", name="ids"), FullEmbedding(10, 2, name="items")]
    )
    with NativeSession(saved_model(model, tmp_path / "items")) as session:
        for wrong in (10, -1):
            with pytest.raises(RuntimeError, match=r"INVALID_ARGUMENT.*ids must be in \[0, 10\)"):
                session.run("serving_default", {"ids": np.array([[wrong]])})


class Halves(CompressedEmbedding):
    """Trains two tables and serves their sum as one."""

    def table_specs(self):
        return {name: TableSpec(self.input_dim, self.output_dim, 1.0) for name in ("left", "right")}

    def lookup(self, ids):
        return self.rows("left", ids) + self.rows("right", ids)

    def for_inference(self):
        served = FullEmbedding(self.input_dim, self.output_dim)
        served.build(None)
        served.embeddings.assign(to_numpy(self.left) + to_numpy(self.right))
        return served

    def footprint(self):
        size = super().footprint()
        served = 4 * self.input_dim * self.output_dim
        return type(size)(size.parameters, size.weight_bytes, 0, served, size.full_parameters)


@pytest.mark.parametrize(("precision", "number_bytes"), [("float32", 4), ("bfloat16", 2)])
def test_the_inference_form_is_what_is_exported(precision, number_bytes, tmp_path):
    ids = keras.Input((2,), dtype="int64", name="ids")
    layer = Halves(30, 4)
    model = keras.Model(ids, layer(ids))
    randomize(layer)
    before = to_numpy(model(np.array([[1, 29]])))
    path = saved_model(model, tmp_path / "halves", precision=precision)
    assert list(stored_bytes(path).values()) == [30 * 4 * number_bytes]
    np.testing.assert_array_equal(to_numpy(model(np.array([[1, 29]]))), before)
    assert "lookup" not in vars(layer)


def test_string_lookup_goes_along(tmp_path):
    text = keras.Input((1,), dtype="string", name="country")
    lookup = keras.layers.StringLookup(vocabulary=["de", "fr"])
    vectors = FullEmbedding(3, 2)(lookup(text))
    model = keras.Model(text, vectors)
    with NativeSession(saved_model(model, tmp_path / "lookup")) as session:
        given = {"country": np.array([["fr"], ["??"]], dtype=object)}
        found = session.run("serving_default", given)["outputs"]
    table = to_numpy(model.layers[-1].embeddings)
    np.testing.assert_array_equal(found[:, 0], table[[2, 0]])


def test_what_cannot_be_exported_says_why(tmp_path):
    model = keras.Sequential([FullEmbedding(10, 2)])
    with pytest.raises(ExportError, match="no weights yet: call it once"):
        saved_model(model, tmp_path / "model")
    with pytest.raises(ExportError, match="float32, float16, bfloat16, not 'int3'"):
        saved_model(two_towers(), tmp_path / "model", precision="int3")
    with pytest.raises(ExportError, match=r"must be a model of the Keras that is in use"):
        saved_model(FullEmbedding(10, 2), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def wrong_values(path, source=None):
    """Stands for a loader, or a kernel, that reads other numbers."""

    class Wrong(NativeSession):
        def run(self, *args):
            return {name: value + 1e-3 for name, value in super().run(*args).items()}

    return Wrong(path)


def test_a_difference_of_outputs_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(checks, "NativeSession", wrong_values)
    with pytest.raises(ExportError, match=r"serving_default: outputs is .* from the model"):
        saved_model(two_towers(), tmp_path / "towers")
    assert not (tmp_path / "towers").exists()


def test_a_table_that_is_stored_twice_is_refused(tmp_path, monkeypatch):
    save = ServingModule.save

    def save_twice(self, path):
        name, variable = next((n, v) for n, v in self.weights.items() if "quotient" in n)
        self.weights = {**self.weights, name + "_again": tf.Variable(variable)}
        save(self, path)

    monkeypatch.setattr(ServingModule, "save", save_twice)
    # 15 rows of 4 floats more.
    with pytest.raises(ExportError, match=r"stores 376 bytes of the network.* 136; the largest"):
        saved_model(two_towers(), tmp_path / "towers")
    assert not (tmp_path / "towers").exists()


def test_optimizer_state_is_refused(tmp_path, monkeypatch):
    save = ServingModule.save

    def save_more(self, path):
        self.velocity = tf.Variable([1.0])
        save(self, path)

    monkeypatch.setattr(ServingModule, "save", save_more)
    with pytest.raises(ExportError, match=r"stores 'velocity/.*', which no signature reads"):
        saved_model(two_towers(), tmp_path / "towers")


def test_versions_count_up_and_never_change(tmp_path):
    model = two_towers()
    assert saved_model(model, tmp_path / "m").name == "1"
    assert saved_model(model, tmp_path / "m", version=7).name == "7"
    (tmp_path / "m" / "v9").mkdir()
    assert saved_model(model, tmp_path / "m").name == "8"
    with pytest.raises(ExportError, match=r"7 exists, and a version never changes.* to get 9"):
        saved_model(model, tmp_path / "m", version=7)
    assert sorted(p.name for p in (tmp_path / "m").iterdir()) == ["1", "7", "8", "v9"]


@pytest.mark.parametrize("layer", [QREmbedding(1000, 4), FullEmbedding(50, 4)], ids=["qr", "full"])
def test_tflite_gives_the_same_and_holds_each_table_once(layer, tmp_path, recwarn):
    ids = keras.Input((2,), dtype="int64", name="ids")
    model = keras.Model(ids, layer(ids))
    path = tflite(model, tmp_path / "lite")
    card = json.loads((path / "model_card.json").read_text())
    assert card["check"]["largest_differences"]["serving_default"] < 1e-6
    size = (path / "model.tflite").stat().st_size
    weights = layer.footprint().inference_bytes
    assert weights == card["bytes"]["weights"]
    assert weights < size < weights + 20_000
    recwarn.clear()  # TensorFlow announces that its interpreter moves.


@pytest.mark.skipif(not LEGACY, reason="the click models need tf_keras")
def test_mixed_precision_models_store_float32(tmp_path):
    from tf_compemb.models import DLRM

    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = DLRM(EmbeddingCollection([40, 30], 4, "qr"), (8,), (8,))
        model.build_on_one_row()
        path = saved_model(model, tmp_path / "mixed")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    network = DLRM.network_parameters(2, 4, (8,), (8,))
    assert sum(stored_bytes(path).values()) == 4 * (network + 2 * 4 * 4 + (10 + 8) * 4)
