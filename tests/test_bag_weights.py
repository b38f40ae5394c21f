"""Weights of bags stand where their ids stand; what does not go together is one sentence."""

import warnings

import numpy as np
import pytest
from runtime import ids_of, to_numpy

from tf_compemb import EmbeddingCollection, FullEmbedding, QREmbedding
from tf_compemb._keras import BACKEND, LEGACY, keras, ops

if BACKEND == "tensorflow":
    import tensorflow as tf

only_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="ragged and sparse tensors are TensorFlow's"
)
DENSE = r"field: `weights` must have the shape of the ids, one weight for each id\."
RAGGED = r"field: ragged `weights` must have the row lengths of the ids, one weight for each id\."
SPARSE = (
    r"field: sparse `weights` must have the indices and the dense shape of the ids, one weight for "
    r"each id\."
)
ROWS = r"field: sparse ids must have shape \(batch, length\), a bag in each row"


@pytest.fixture(scope="module")
def layer():
    made = QREmbedding(12, 4, combiner="mean", name="field")
    made.build(None)
    return made


def ragged(rows, dtype="int64", **kwargs):
    return tf.ragged.constant(rows, dtype=dtype, **kwargs)


def sparse(indices, values, shape, dtype="int64"):
    return tf.SparseTensor(indices, tf.constant(values, dtype), shape)


def refused_everywhere(layer, ids, weights, message):
    """Eagerly, in a graph of known shapes, and in one that knows no sizes."""
    with pytest.raises(ValueError, match=message):
        layer(ids, weights=weights)

    def call(ids, weights):
        return layer(ids, weights=weights)

    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
        tf.function(call)(ids, weights)
    signature = [loose(ids), loose(weights)]
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        tf.function(call, input_signature=signature)(ids, weights)


def loose(x):
    if isinstance(x, tf.RaggedTensor):
        shape = [None] * len(x.shape)
        return tf.RaggedTensorSpec(shape, x.dtype, x.ragged_rank, x.row_splits.dtype)
    if isinstance(x, tf.SparseTensor):
        return tf.SparseTensorSpec([None] * len(x.shape), x.dtype)
    return tf.TensorSpec([None] * len(x.shape), x.dtype)


@only_tensorflow
@pytest.mark.parametrize(
    ("ids", "weights"),
    [
        ([[1, 2], [3]], [[1.0], [2.0, 3.0]]),
        ([[1, 2], []], [[1.0], [2.0]]),
        ([[1, 2], [3]], [[1.0, 2.0], [3.0], []]),
        ([[1, 2], [3]], [[1.0, 2.0, 3.0]]),
        ([[1, 2], [3]], [[1.0, 2.0]]),
        ([[], []], [[1.0], []]),
        ([[[1], [2, 3]]], [[[1.0, 2.0], [3.0]]]),
        ([[[1], [2, 3]]], [[[1.0]], [[2.0, 3.0]]]),
    ],
    ids=str,
)
def test_ragged_weights_of_other_rows(layer, ids, weights):
    depth = {"ragged_rank": 2 if isinstance(weights[0][0], list) else 1}
    refused_everywhere(layer, ragged(ids, **depth), ragged(weights, "float32", **depth), RAGGED)


@only_tensorflow
def test_ragged_weights_of_another_depth(layer):
    ids, weights = ragged([[[1], [2, 3]]]), ragged([[1.0, 2.0]], "float32")
    with pytest.raises(ValueError, match=RAGGED):
        layer(ids, weights=weights)
    with pytest.raises(ValueError, match=RAGGED):
        tf.function(lambda i, w: layer(i, weights=w))(ids, weights)


@only_tensorflow
@pytest.mark.parametrize(
    ("indices", "count", "shape"),
    [
        ([[0, 0], [1, 1]], 2, (2, 2)),
        ([[0, 0], [0, 1], [1, 0]], 3, (2, 2)),
        ([[0, 0]], 1, (2, 2)),
        ([[0, 0], [1, 0]], 2, (3, 2)),
        ([[0, 0], [1, 0]], 2, (2, 3)),
        (np.zeros((0, 2), int), 0, (2, 2)),
    ],
    ids=str,
)
def test_sparse_weights_of_other_indices(layer, indices, count, shape):
    ids = sparse([[0, 0], [1, 0]], [4, 5], (2, 2))
    refused_everywhere(layer, ids, sparse(indices, np.ones(count), shape, "float32"), SPARSE)


@only_tensorflow
def test_equal_places_in_other_tensors_are_taken(layer):
    """Splits of 32 bits beside those of 64, and indices that are equal and not the same."""
    table = to_numpy(layer_of_one(layer)(np.arange(12)))
    expected = [(table[1] + 3 * table[2]) / 4, table[3]]
    ids = ragged([[1, 2], [3]])
    weights = ragged([[1.0, 3.0], [2.0]], "float32", row_splits_dtype="int32")
    pairs = [
        (ids, weights),
        (ids.to_sparse(), weights.to_sparse()),
        (ids, ragged([[1, 3], [2]], "int32")),
    ]
    for i, w in pairs:
        np.testing.assert_allclose(to_numpy(layer(i, weights=w)), expected, rtol=1e-5)
        call = tf.function(lambda i, w: layer(i, weights=w), input_signature=[loose(i), loose(w)])
        np.testing.assert_allclose(to_numpy(call(i, w)), expected, rtol=1e-5)


def layer_of_one(layer):
    one = QREmbedding(12, 4)
    one.build(None)
    one.set_weights(layer.get_weights())
    return one


@only_tensorflow
def test_ids_and_weights_of_different_forms(layer):
    forms = {
        "ragged": ragged([[1, 2], [3, 4]]),
        "sparse": ragged([[1, 2], [3, 4]]).to_sparse(),
        "dense": tf.constant([[1, 2], [3, 4]]),
    }
    for name, ids in forms.items():
        for other, tensor in forms.items():
            if name == other:
                continue
            message = f"field: `weights` must come in the form of the ids.*{name} ids and {other}"
            weights = tf.cast(tensor, "float32")
            with pytest.raises(ValueError, match=message):
                layer(ids, weights=weights)
            with pytest.raises(ValueError, match=message):
                tf.function(lambda i, w: layer(i, weights=w))(ids, weights)
            if name != "dense" and other == "dense":
                with pytest.raises(ValueError, match=message):
                    layer(ids, weights=np.ones((2, 2), "float32"))
                with pytest.raises(ValueError, match=message):
                    layer(ids, weights=[[1.0, 2.0], [3.0, 4.0]])


@only_tensorflow
@pytest.mark.parametrize("rank", [1, 3])
def test_sparse_ids_of_other_ranks(layer, rank):
    ids = sparse([[0] * rank, [1] * rank], [1, 2], [2] * rank)
    with pytest.raises(ValueError, match=ROWS):
        layer(ids)
    with pytest.raises(ValueError, match=ROWS):
        tf.function(layer)(ids)
    with pytest.raises(tf.errors.InvalidArgumentError, match=ROWS):
        tf.function(layer, input_signature=[tf.SparseTensorSpec(None, tf.int64)])(ids)


@only_tensorflow
def test_shapes_of_bags_are_those_of_compute_output_shape(layer):
    uniform = tf.RaggedTensor.from_row_lengths(tf.constant([[1, 2], [3, 4], [5, 6]]), [1, 2])
    table = to_numpy(layer_of_one(layer)(np.arange(12)))
    for ids in (
        ragged([[[1, 2], [3]], [[4]]]),
        uniform,
        ragged([[1]]),
        tf.ones((2, 3, 2), "int64"),
    ):
        found = layer(ids)
        expected = layer.compute_output_shape(ids.shape)
        assert tf.TensorShape(expected).is_compatible_with(found.shape)
        assert len(found.shape) == len(expected)
    rows = layer(uniform).flat_values
    expected = [(table[1] + table[2]) / 2, (table[3] + table[4]) / 2, (table[5] + table[6]) / 2]
    np.testing.assert_allclose(to_numpy(rows), expected, rtol=1e-5)
    weights = uniform.with_flat_values(tf.constant([[1.0, 0.0], [0.0, 2.0], [1.0, 1.0]]))
    rows = layer(uniform, weights=weights).flat_values
    np.testing.assert_allclose(to_numpy(rows), [table[1], table[4], expected[2]], rtol=1e-5)


@pytest.mark.parametrize("shape", [(2,), (1, 2), (3, 1), (3, 3), (3, 2, 1), (2, 3), ()], ids=str)
def test_dense_weights_of_another_shape(layer, shape):
    """Also those that would broadcast."""
    ids = np.array([[1, 2], [3, 4], [5, 6]])
    with pytest.raises(ValueError, match=DENSE):
        layer(ids, weights=np.ones(shape, "float32"))
    if BACKEND == "tensorflow":

        def call(ids, weights):
            return layer(ids, weights=weights)

        given = tf.constant(ids), tf.ones(shape)
        with pytest.raises(ValueError, match=DENSE):
            tf.function(call)(*given)
        if len(shape) == 2:
            with pytest.raises(tf.errors.InvalidArgumentError, match=DENSE):
                tf.function(call, input_signature=[loose(x) for x in given])(*given)
    if BACKEND == "jax":
        import jax

        variables = [v.value for v in layer.trainable_variables], []
        with pytest.raises(ValueError, match=DENSE):
            jax.jit(lambda i, w: layer.stateless_call(*variables, i, weights=w)[0])(
                ids_of(ids), np.ones(shape, "float32")
            )


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ([["a", "b"]], "`weights` must be numbers, not string"),
        ([[None, 1.0]], "`weights` must be numbers, not None"),
        (np.array([[1j, 2]]), "`weights` must be numbers, not complex128"),
        (
            np.array([[1, {}]], dtype=object),
            r"`weights` must be numbers, not Python objects \(dict",
        ),
        ([[1.0], [1.0, 2.0]], "`weights` are lists of different lengths"),
    ],
)
def test_weights_that_are_no_numbers(layer, weights, message):
    with pytest.raises((TypeError, ValueError), match=f"field: {message}"):
        layer([[1, 2]], weights=weights)


@pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int32", "int64", "bool"])
def test_weights_of_any_number_type(layer, dtype):
    ids, weights = [[1, 2], [3, 4]], np.array([[1, 0], [1, 1]])
    expected = to_numpy(layer(ids, weights=weights.astype("float32")))
    np.testing.assert_allclose(
        to_numpy(layer(ids, weights=weights.astype(dtype))), expected, rtol=1e-6
    )
    np.testing.assert_allclose(to_numpy(layer(ids, weights=weights.tolist())), expected, rtol=1e-6)


def test_weights_in_a_functional_model():
    layer = FullEmbedding(12, 4, combiner="sum", name="field")
    ids, weights = keras.Input((3,), dtype="int32"), keras.Input((3,))
    model = keras.Model([ids, weights], layer(ids, weights=weights))
    batch = np.array([[1, 2, 3], [4, 0, 5]]), np.array([[1, 0, 2], [1, 1, 0.5]], "float32")
    table = to_numpy(layer.weights[0])
    expected = (table[batch[0]] * batch[1][..., None]).sum(axis=1)
    np.testing.assert_allclose(model.predict(list(batch), verbose=0), expected, rtol=1e-5)
    for shape in ((2,), (3, 1), ()):
        with pytest.raises(ValueError, match=DENSE):
            layer(ids, weights=keras.Input(shape))
    with pytest.raises(TypeError, match="field: `weights` must be numbers, not string"):
        layer(ids, weights=keras.Input((3,), dtype="string"))
    with pytest.raises(ValueError, match="plain: `weights` need a combiner"):
        FullEmbedding(12, 4, name="plain")(ids, weights=weights)


@pytest.mark.skipif(LEGACY, reason="tf_keras builds a subclassed model as it is called")
def test_weights_in_a_subclassed_model():
    """Keras 3 builds it by a call without values, of tensors on torch's device "meta"."""

    class Scores(keras.Model):
        def __init__(self):
            super().__init__()
            self.bags = QREmbedding(12, 4, combiner="mean", name="field")
            self.score = keras.layers.Dense(1)

        def call(self, inputs):
            ids, weights = inputs
            return self.score(self.bags(ids, weights=weights))

    model = Scores()
    model.compile("sgd", "mse")
    batch = [np.array([[1, 2, 3], [4, 0, 5]]), np.array([[1, 0, 2], [1, 1, 0.5]], "float32")]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model.fit(batch, np.ones((2, 1)), verbose=0)
    assert [str(w.message) for w in caught if "unbuilt" in str(w.message)] == []
    found = model.predict(batch, verbose=0)
    expected = model.score(model.bags(batch[0], weights=batch[1]))
    np.testing.assert_allclose(found, to_numpy(expected), rtol=1e-5)


@only_tensorflow
def test_forms_of_placeholders():
    layer = FullEmbedding(12, 4, combiner="sum", name="field")
    dense = keras.Input((3,), dtype="int32")
    many = keras.Input((3, 3), dtype="int32", sparse=True)
    with pytest.raises(ValueError, match=ROWS):
        layer(many)
    few = keras.Input((3,), dtype="int32", sparse=True)
    assert tuple(layer(few).shape) == (None, 4)
    with pytest.raises(ValueError, match=r"form of the ids.*sparse ids and dense weights"):
        layer(few, weights=keras.Input((3,)))
    with pytest.raises(ValueError, match=r"form of the ids.*dense ids and sparse weights"):
        layer(dense, weights=keras.Input((3,), sparse=True))
    with pytest.raises(ValueError, match="plain: sparse ids need a combiner"):
        FullEmbedding(12, 4, name="plain")(few)
    bags = keras.Input((None,), dtype="int32", ragged=True)
    assert tuple(layer(bags).shape) == (None, 4)
    with pytest.raises(ValueError, match=r"form of the ids.*ragged ids and dense weights"):
        layer(bags, weights=keras.Input((None,)))


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has sparse and ragged ids")
def test_sparse_ids_without_tensorflow():
    layer = FullEmbedding(12, 4, combiner="sum", name="field")
    if BACKEND == "jax":
        from jax.experimental import sparse as jax_sparse

        with pytest.raises(TypeError, match=r"field: ids must be a tensor.*Received: BCOO"):
            layer(jax_sparse.BCOO.fromdense(np.eye(3, dtype="int32")))
        with pytest.raises(ValueError, match="field: sparse ids need the TensorFlow backend"):
            layer(keras.Input((3,), dtype="int32", sparse=True))
    else:
        with pytest.raises(ValueError, match="field: sparse and nested ids need the TensorFlow"):
            layer(ops.convert_to_tensor(np.eye(3, dtype="int64")).to_sparse())


COLLECTION = {"user": 30, "tags": 40}


@pytest.fixture(scope="module")
def collection():
    made = EmbeddingCollection(COLLECTION, 4, name="fields")
    made.build(None)
    return made


def test_weights_of_a_collection(collection):
    inputs = {"user": np.array([1, 2]), "tags": np.array([[1, 2], [3, 4]])}
    weights = {"tags": [[1.0, 0.5], [0, 2]], "user": None}
    found = to_numpy(collection(inputs, weights=weights))
    tags = to_numpy(collection.field_vectors("tags", np.arange(40)))
    np.testing.assert_allclose(found[:, 1], [tags[1] + tags[2] / 2, 2 * tags[4]], rtol=1e-5)
    users = to_numpy(collection.field_vectors("user", np.array([1, 2])))
    np.testing.assert_allclose(found[:, 0], users, rtol=1e-6)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"tag": [[1.0, 1.0]] * 2}, r"fields: `weights` has fields \['tag'\] that do not exist"),
        ({"user": [1.0, 1.0]}, "fields: field 'user' has one id a row, and `weights` go with bags"),
        ({"tags": [1.0, 1.0]}, "fields: field 'tags': `weights` must have the shape of the ids"),
        ({"tags": [["a", "b"]] * 2}, "fields: field 'tags': `weights` must be numbers"),
        ([[1.0, 1.0]] * 2, "fields: `weights` must be a mapping from names of fields"),
    ],
)
def test_wrong_weights_of_a_collection(collection, weights, message):
    inputs = {"user": np.array([1, 2]), "tags": np.array([[1, 2], [3, 4]])}
    with pytest.raises((TypeError, ValueError), match=message):
        collection(inputs, weights=weights)


def test_weights_beside_ids_without_bags(collection):
    """They used to be ignored."""
    message = "fields: `weights` go with bags of ids"
    with pytest.raises(ValueError, match=message):
        collection(np.array([[1, 2]]), weights={"tags": [[1.0]]})
    with pytest.raises(ValueError, match="field 'tags' has one id a row"):
        collection({"user": np.array([1]), "tags": np.array([2])}, weights={"tags": [1.0]})


@pytest.mark.parametrize("shape", [(), (2, 3, 1)], ids=str)
def test_fields_of_other_ranks(collection, shape):
    inputs = {"user": np.array([1, 2]), "tags": np.ones(shape, int)}
    message = r"fields: field 'tags' needs ids of shape \(batch,\), or bags of shape \(batch, leng"
    with pytest.raises(ValueError, match=message):
        collection(inputs)
    if shape:
        with pytest.raises(ValueError, match=message):
            collection([keras.Input((), dtype="int32"), keras.Input(shape[1:], dtype="int32")])


def test_placeholders_of_a_collection(collection):
    ids = {"user": keras.Input((), dtype="int32"), "tags": keras.Input((3,), dtype="int32")}
    assert tuple(collection(ids, weights={"tags": keras.Input((3,))}).shape) == (None, 2, 4)
    with pytest.raises(ValueError, match="field 'tags': `weights` must have the shape of the ids"):
        collection(ids, weights={"tags": keras.Input((2,))})
    with pytest.raises(ValueError, match="field 'user' has one id a row"):
        collection(ids, weights={"user": keras.Input(())})
    with pytest.raises(ValueError, match=r"expected ids of shape \(batch, 2\)"):
        collection(keras.Input((3,), dtype="int32"))


@only_tensorflow
def test_ragged_weights_of_a_collection(collection):
    users = tf.constant([1, 2])
    inputs = {"user": users, "tags": ragged([[1, 2], [3]])}
    with pytest.raises(
        ValueError, match="fields: field 'tags': ragged `weights` must have the row"
    ):
        collection(inputs, weights={"tags": ragged([[1.0], [2.0, 3.0]], "float32")})
    with pytest.raises(ValueError, match="field 'tags' needs ids of shape"):
        collection({"user": users, "tags": ragged([[[1]], [[2]]])})


def test_weights_as_a_second_argument(layer):
    ids, weights = np.array([[1, 2]]), np.array([[1.0, 3.0]], "float32")
    np.testing.assert_array_equal(
        to_numpy(layer(ids, weights)), to_numpy(layer(ids, weights=weights))
    )
