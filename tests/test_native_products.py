"""Products of rows read by the compiled kernels: vectors, gradients, refusals, what is saved."""

import hashlib

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_compemb._keras import BACKEND, keras

if BACKEND != "tensorflow":
    pytest.skip("the kernels are TensorFlow's", allow_module_level=True)

import tensorflow as tf
from optimizer_training import make_optimizer, raw
from product_collections import METHODS, SIZES, batch, collection
from product_entries import attributes_of
from runtime import printed_with_threads, randomize, saved_graphs, types_of_ops

from tf_compemb import FullEmbedding, QREmbedding, native_kernels

compiled = pytest.mark.slow  # compiling takes a minute
FIXTURE = [HealthCheck.function_scoped_fixture]  # `kernels` is the same in every example


def products(kernels, tables, ids, entries, **changed):
    """Vectors and row numbers of `entries`, which are as in `attributes_of`."""
    sizes = [int(ids[:, f].max(initial=0)) + 1 for f in range(ids.shape[1])]
    said = attributes_of(tables, sizes, entries)
    variables = [tf.Variable(table) for table in tables]
    handles = [variable.handle for variable in variables]
    return kernels.tf_compemb_read_row_products(handles, ids, **{**said, **changed})


@compiled
def test_a_product_worked_by_hand(kernels):
    # Id 5 of field 0: quotient 5 // 2 = 2, remainder 1; of field 1: row 5 % 3 + 3 of table 0.
    table = np.arange(12, dtype="float32").reshape(6, 2)
    other = np.array([[10, 10], [100, 1]], "float32")
    entries = [(0, 0, 2, 3, 0), (0, 1, 1, 2, 0), (1, 0, 1, 3, 3)]
    vectors, numbers = products(kernels, [table, other], np.array([[5, 5]]), entries)
    np.testing.assert_array_equal(vectors, [[[400, 5], [10, 11]]])
    assert [n.numpy().tolist() for n in numbers] == [[[2, 5]], [[1]]]


@compiled
@given(
    ids=st.lists(st.integers(0, 2**31 - 2), min_size=1, max_size=20),
    divisor=st.integers(1, 2**31) | st.sampled_from([2**k for k in range(32)]),
    modulus=st.integers(1, 50_000) | st.sampled_from([2**k for k in range(16)]),
    id_type=st.sampled_from(["int32", "int64"]),
)
@settings(deadline=None, max_examples=200, suppress_health_check=FIXTURE)
def test_row_numbers_are_digits_of_any_id(kernels, ids, divisor, modulus, id_type):
    ids = np.array(ids, id_type)[:, None]
    _, numbers = products(
        kernels, [np.zeros((modulus + 2, 1), "float32")], ids, [(0, 0, divisor, modulus, 2)]
    )
    np.testing.assert_array_equal(numbers[0], ids.astype("int64") // divisor % modulus + 2)


def trained(layer, ids, upstream):
    """Vectors, and the gradients of the variables as arrays and by their types."""
    variables = [raw(v) for v in layer.trainable_variables]
    with tf.GradientTape() as tape:
        vectors = layer(ids, training=True)
    found = tape.gradient(vectors, variables, output_gradients=upstream)
    return vectors, [tf.convert_to_tensor(g).numpy() for g in found], [type(g) for g in found]


def not_read(*_):
    """In place of `read_products`."""


@compiled
@pytest.mark.parametrize("rows", [0, 1, 5, 3000])  # The last in several blocks and parts.
@pytest.mark.parametrize("small", [0, 100, 2048])
@pytest.mark.parametrize("method", METHODS)
def test_vectors_and_gradients_are_those_of_tensorflows_ops(
    kernels, monkeypatch, method, small, rows
):
    monkeypatch.setattr("tf_compemb.storage.small_table.SMALL_TABLE", small)
    layer = collection(method)
    ids, upstream = batch(rows)
    vectors, gradients, types = trained(layer, ids, upstream)
    assert "TfCompemb>ReadRowProducts" in types_of_ops(
        tf.function(lambda x: trained_vectors(layer, x)), ids
    )
    monkeypatch.setattr("tf_compemb.layers.fused.read_products", not_read)
    expected, expected_gradients, expected_types = trained(layer, ids, upstream)
    np.testing.assert_array_equal(vectors, expected)
    np.testing.assert_array_equal(vectors, layer(ids))
    assert types == expected_types
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-4)


def trained_vectors(layer, ids):
    with tf.GradientTape():
        return layer(ids, training=True)


@compiled
@pytest.mark.parametrize("shape", [(), (5,), (4, 3)])
@pytest.mark.parametrize("operation", ["mult", "add"])
def test_a_single_layer_reads_products_too(kernels, monkeypatch, operation, shape):
    layer = QREmbedding(3001, 8, collisions=7, operation=operation)
    layer.build()
    randomize(layer)
    ids = tf.constant(np.random.default_rng(0).integers(0, 3001, shape))
    upstream = tf.random.normal((*shape, 8), seed=1)
    used = "TfCompemb>ReadRowProducts" in types_of_ops(
        tf.function(lambda x: trained_vectors(layer, x)), ids
    )
    assert used == (operation == "mult")
    vectors, gradients, types = trained(layer, ids, upstream)
    monkeypatch.setattr("tf_compemb.layers.compositional._partitioned.read_products", not_read)
    expected, expected_gradients, expected_types = trained(layer, ids, upstream)
    np.testing.assert_array_equal(vectors, expected)
    assert types == expected_types
    for got, wanted in zip(gradients, expected_gradients, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


@compiled
@pytest.mark.parametrize("method", ["qr by 4", "crt"])
def test_gradients_are_those_of_finite_differences(kernels, method):
    layer = collection(method)
    ids, upstream = batch(4)
    _, gradients, _ = trained(layer, ids, upstream)
    for variable, gradient in zip(layer.trainable_variables, gradients, strict=True):
        row, column = np.unravel_index(np.abs(gradient).argmax(), gradient.shape)
        start, ends = variable.numpy(), []
        for step in (0.5, -0.5):  # Exact but for rounding: a vector is linear in each row.
            moved = start.copy()
            moved[row, column] += step
            variable.assign(moved)
            ends.append(float(tf.reduce_sum(layer(ids, training=False) * upstream)))
        variable.assign(start)
        assert ends[0] - ends[1] == pytest.approx(gradient[row, column], rel=1e-3)


def digest_of_gradients():
    """A hash of all bits of gradients that are added up in several parts."""
    _, gradients, _ = trained(collection("qr by 4", seed=5), *batch(6000))
    return hashlib.sha256(b"".join(g.tobytes() for g in gradients)).hexdigest()


@compiled
def test_every_bit_is_the_same_whatever_the_number_of_threads(kernels):
    expected = digest_of_gradients()
    assert digest_of_gradients() == expected
    script = "import test_native_products as t; print(t.digest_of_gradients())"
    assert printed_with_threads(7, script) == expected


@compiled
@pytest.mark.parametrize("method", ["qr by 4", "crt"])
@pytest.mark.parametrize("rule", ["sgd", "adagrad"])
def test_training_is_that_without_the_kernels(kernels, monkeypatch, method, rule):
    ids, target = batch(64)
    ends = []
    for read in (None, not_read):
        if read is not None:
            monkeypatch.setattr("tf_compemb.layers.fused.read_products", read)
        keras.utils.set_random_seed(3)
        layer = collection(method)
        model = keras.Sequential([keras.Input((len(SIZES),), dtype="int64"), layer])
        model.compile(make_optimizer(rule, 0.05), "mse")
        model.fit(ids, target, batch_size=16, epochs=3, shuffle=False, verbose=0)
        ends.append([v.numpy() for v in layer.trainable_variables])
    for got, expected in zip(*ends, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@compiled
@pytest.mark.parametrize(("training", "jit"), [(False, False), (True, True)])
def test_evaluation_and_xla_read_by_tensorflows_ops(kernels, training, jit):
    layer = collection("qr by 4")

    def read(ids):
        with tf.GradientTape():
            return layer(ids, training=training)

    types = types_of_ops(tf.function(read, jit_compile=jit), batch(3)[0])
    assert not any(name.startswith("TfCompemb") for name in types)


@compiled
@pytest.mark.parametrize("method", METHODS)
def test_predictions_in_inference_are_by_the_kernels(kernels, monkeypatch, method):
    monkeypatch.setattr("tf_compemb.storage.small_table.SMALL_TABLE", 100)
    layer, ids = collection(method), batch(50)[0]
    expected = layer(ids)
    function = tf.function(lambda x: layer(x, training=False))
    with native_kernels.in_inference():
        assert "TfCompemb>ReadRowProducts" in types_of_ops(function, ids)
        np.testing.assert_array_equal(layer(ids), expected)
    np.testing.assert_array_equal(function(ids), expected)
    after = tf.function(lambda x: layer(x, training=False))
    assert not any(name.startswith("TfCompemb") for name in types_of_ops(after, ids))


@compiled
def test_a_large_table_is_read_by_the_kernels_in_inference(kernels, every_table_is_read_by_rows):
    layer = FullEmbedding(50, 3)
    layer.build()
    function = tf.function(lambda x: layer(x))
    with native_kernels.in_inference():
        types = types_of_ops(function, tf.constant([1, 49]))
    assert "TfCompemb>ReadRows" in types
    assert "ResourceGather" not in types


@compiled
def test_what_is_saved_after_prediction_in_inference_needs_no_kernels(kernels, tmp_path):
    layer = collection("qr by 4")
    model = keras.Sequential([keras.Input((len(SIZES),), dtype="int64"), layer])
    ids = batch(8)[0]
    with native_kernels.in_inference():
        predicted = model.predict(ids, verbose=0)
    np.testing.assert_array_equal(predicted, layer(ids))
    assert b"TfCompemb" not in saved_graphs(model, tmp_path / "model")


@compiled
def test_what_is_saved_after_training_needs_no_kernels(kernels, tmp_path):
    layer = collection("qr by 4")
    model = keras.Sequential([keras.Input((len(SIZES),), dtype="int64"), layer])
    model.compile(make_optimizer("adagrad", 0.1), "mse")
    ids, target = batch(8)
    model.fit(ids, target, verbose=0)
    assert b"TfCompemb" not in saved_graphs(model, tmp_path / "model")


@compiled
@pytest.mark.parametrize("outside", [-1, 6, 2**40, -(2**63)])
def test_an_id_out_of_range_is_refused(kernels, outside):
    ids = np.zeros((3000, 2), "int64")
    ids[[1500, 2900], 1] = outside
    message = rf"ids\[1500, 1\] = {outside} is not in \[0, 6\)"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        products(
            kernels,
            [np.zeros((6, 2), "float32")],
            ids,
            [(0, 0, 1, 6, 0), (1, 0, 1, 6, 0)],
            sizes=[6, 6],
        )


@compiled
@pytest.mark.parametrize("id_type", ["int32", "int64"])
@pytest.mark.parametrize("outside", [-1, 653, 2**31 - 1])
def test_ids_of_a_graph_are_checked_where_they_are_read(kernels, outside, id_type):
    layer = collection("qr by 4")
    ids = batch(40)[0].numpy().astype(id_type)
    function = tf.function(lambda x: trained_vectors(layer, x))
    np.testing.assert_array_equal(function(tf.constant(ids)), layer(ids))
    assert "Assert" not in types_of_ops(function, tf.constant(ids))
    ids[30, 3] = outside
    message = rf"ids of each field must be in .* ids\[30, 3\] = {outside} is not in \[0, 653\)"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        function(tf.constant(ids))
    with tf.GradientTape(), pytest.raises(ValueError, match=f"each field .* Received: {outside}"):
        layer(ids, training=True)


@compiled
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"offsets": [0, 5]}, "Entry 1 reaches beyond its table"),
        ({"divisors": [0, 1]}, "Entry 0 reaches beyond its table"),
        ({"moduli": [6, -1]}, "Entry 1 reaches beyond its table"),
        ({"sizes": [2**31, 6]}, "Entry 0 reaches beyond its table"),
        ({"sizes": [6]}, "a size for each field"),
        ({"fields": [0, 2]}, "Entry 1 has a field or a table that is not there"),
        ({"fields": [0, 0]}, "Each field must have an entry"),
        ({"tables_of_entries": [0]}, "Each entry must have a field and a table"),
        ({"rows": [7]}, r"Table 0 must be a float32 matrix \(7, 2\)"),
        ({"width": 3}, r"Table 0 must be a float32 matrix \(6, 3\)"),
    ],
)
def test_attributes_that_would_read_beyond_a_table_are_refused(kernels, changed, message):
    entries = [(0, 0, 1, 6, 0), (1, 0, 1, 6, 0)]
    said = {"sizes": [6, 6], **changed}
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        products(kernels, [np.zeros((6, 2), "float32")], np.zeros((3, 2), "int64"), entries, **said)


@compiled
@pytest.mark.parametrize(
    ("numbers", "upstream", "message"),
    [
        ([[6, 0]], (1, 2, 2), r"Row numbers of table 0 must be in \[0, 6\)"),
        ([[-1, 0]], (1, 2, 2), r"in \[0, 6\)"),
        ([[0, 0]], (2, 2, 2), r"numbers of table 0 must be of shape \(2, 2\), not \[1,2\]"),
        ([[0, 0]], (1, 2, 3), r"must be of shape \(batch, 2, 2\), not \[1,2,3\]"),
        ([[0, 0]], (), r"must be of shape \(batch, 2, 2\), not \[\]"),
    ],
)
def test_gradients_of_other_shapes_or_rows_are_refused(kernels, numbers, upstream, message):
    table = tf.Variable(tf.zeros((6, 2)))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        kernels.tf_compemb_row_product_gradients(
            [table.handle],
            [np.array(numbers, "int32")],
            tf.zeros(upstream),
            rows=[6],
            width=2,
            num_fields=2,
            fields=[0, 1],
            tables_of_entries=[0, 0],
            dense=[True],
        )
