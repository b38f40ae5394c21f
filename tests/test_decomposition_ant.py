"""ANT: the proximal step by hand and against NumPy, what is sparse, compressed rows, anchors."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from runtime import ids_of, randomize, to_numpy, weights_by_name

from tf_compemb import ANTEmbedding, LowRankEmbedding, optimizers
from tf_compemb._keras import BACKEND, LEGACY, keras, ops
from tf_compemb.layers.decomposition._anchors import anchors_of, squared_distances
from tf_compemb.storage.row_constraint import SparseRows
from tf_compemb.storage.table_rows import table_of


def with_weights(layer, **values):
    layer.build(None)
    for name, value in values.items():
        getattr(layer, name).assign(np.asarray(value, "float32"))
    return layer


def test_a_row_worked_by_hand():
    layer = with_weights(
        ANTEmbedding(1, 2, num_anchors=3),
        transform=[[0.5, 0, 2]],
        anchors=[[1, 0], [0, 1], [1, -1]],
    )
    np.testing.assert_array_equal(to_numpy(layer(np.array([0]))), [[2.5, -2.0]])
    np.testing.assert_array_equal(to_numpy(layer.served_factors()(np.array([0]))), [[2.5, -2.0]])


def test_without_clipping_it_is_the_low_rank_product():
    rng = np.random.default_rng(0)
    transform, anchors = rng.uniform(size=(50, 4)), rng.normal(size=(4, 8))
    ant = ANTEmbedding(50, 8, num_anchors=4, nonzeros=4, penalty=0.0)
    ant = with_weights(ant, transform=transform, anchors=anchors)
    low = with_weights(LowRankEmbedding(50, 8, rank=4), rows_of_ids=transform, projection=anchors)
    ids = np.arange(50)
    np.testing.assert_array_equal(to_numpy(ant(ids)), to_numpy(low(ids)))


# The constraint.


def nearest_sparse_row(row, nonzeros):
    kept = sorted(range(len(row)), key=lambda k: (-row[k], k))[:nonzeros]
    return [x if k in kept and x > 0 else 0.0 for k, x in enumerate(row)]


@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    row=st.lists(st.sampled_from([-1.0, 0.0, 0.25, 0.5, 2.0]), min_size=4, max_size=4),
    nonzeros=st.integers(1, 5),
)
def test_the_nearest_sparse_row(row, nonzeros):
    constraint = SparseRows(nonzeros)
    found = to_numpy(constraint(np.array([row], "float32")))
    assert found.tolist() == [nearest_sparse_row(row, nonzeros)]
    np.testing.assert_array_equal(to_numpy(constraint(found)), found)


# Training.


def model_of(layer, optimizer, **compiling):
    """A model whose loss has the labels as the gradients of the vectors, over the batch's rows."""
    inputs = keras.Input((1,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Flatten()(layer(inputs)))
    model.compile(optimizer, lambda y, p: ops.sum(y * p, axis=-1), **compiling)
    return model


def fit(model, ids, cotangents, **options):
    model.fit(
        ids[:, None], cotangents, batch_size=8, shuffle=False, verbose=0, **{"epochs": 1, **options}
    )


def test_the_proximal_step_worked_by_hand():
    """At a threshold of 0.1: 0.3 to 0.2, 0.05 to 0, and -0.2, where the step without it ends, to 0.

    The fourth number has a gradient of -0.5.
    """
    layer = ANTEmbedding(2, 4, num_anchors=4, nonzeros=4, penalty=0.1)
    model = model_of(layer, optimizers.SGD(1.0))
    with_weights(layer, transform=[[0.3, 0.05, 0, 0], [0.3, 0.2, 0.1, 0]], anchors=np.eye(4))
    fit(model, np.array([0]), np.array([[0, 0, 0.2, -0.5]], "float32"))
    found = to_numpy(layer.transform)
    np.testing.assert_allclose(found, [[0.2, 0, 0, 0.4], [0.3, 0.2, 0.1, 0]], rtol=1e-6)
    assert (found[0, 1:3] == 0).all()


ROWS, ANCHORS, WIDTH, PENALTY = 60, 5, 4, 0.05


def problem(repeats):
    rng = np.random.default_rng(3)
    batches = [rng.choice(ROWS, 8, replace=repeats) for _ in range(12)]
    return np.concatenate(batches), rng.normal(size=(96, WIDTH)).astype("float32")


def dense_training(transform, anchors, ids, cotangents, rule, nonzeros):
    """The same steps on whole arrays in float64, by the formulas."""
    weights = [transform.astype("float64"), anchors.astype("float64")]
    state = [np.full_like(w, 0.1) for w in weights]
    for start in range(0, len(ids), 8):
        picked, y = ids[start : start + 8], cotangents[start : start + 8].astype("float64")
        gradients = [np.zeros_like(w) for w in weights]
        for i, g in zip(picked, y, strict=True):
            gradients[0][i] += (weights[1] @ g + PENALTY) / 8
            gradients[1] += np.outer(weights[0][i], g) / 8
        for w, a, g in zip(weights, state, gradients, strict=True):
            w -= rule(a, g)
        touched = np.unique(picked)
        weights[0][touched] = [
            nearest_sparse_row(r, nonzeros) for r in weights[0][touched].tolist()
        ]
    return weights


def sgd(accumulated, gradient):
    return 0.3 * gradient


def adagrad(accumulated, gradient):
    accumulated += gradient**2
    return 0.3 * gradient / np.sqrt(accumulated + 1e-7)


def row_wise(accumulated, gradient):
    if len(gradient) == ANCHORS:  # The anchors are no table.
        return adagrad(accumulated, gradient)
    accumulated += (gradient**2).mean(axis=1, keepdims=True)
    return 0.3 * gradient / np.sqrt(accumulated + 1e-7)


TRAINED_BY = {
    "sgd": (sgd, lambda: optimizers.SGD(0.3)),
    "adagrad": (adagrad, lambda: optimizers.Adagrad(0.3)),
    "rowwise_adagrad": (row_wise, lambda: optimizers.RowWiseAdagrad(0.3)),
    "stock sgd": (sgd, lambda: keras.optimizers.SGD(0.3)),
    "stock adagrad": (adagrad, lambda: keras.optimizers.Adagrad(0.3)),
}
trained_by = pytest.mark.parametrize("name", TRAINED_BY)


@pytest.fixture(params=[False, True], ids=["small table", "large table"])
def table_size(request):
    if request.param:
        if BACKEND != "tensorflow":
            pytest.skip("gradients are dense outside TensorFlow")
        request.getfixturevalue("every_table_is_read_by_rows")
    return "large" if request.param else "small"


@pytest.mark.filterwarnings("ignore:Converting sparse IndexedSlices")
@trained_by
def test_training_is_the_formulas_on_whole_arrays(name, table_size):
    rule, make = TRAINED_BY[name]
    # Keras 3's own Adagrad on TensorFlow adds up the squares of repeated ids.
    ids, cotangents = problem(repeats=not name.startswith("stock"))
    layer = ANTEmbedding(ROWS, WIDTH, num_anchors=ANCHORS, nonzeros=3, penalty=PENALTY)
    # In graphs of TensorFlow one step in thousands differs, with plain Dense layers too, where a
    # dense update does not wait for the loss, as under this loss.
    eagerly = BACKEND == "tensorflow" and table_size == "small"
    model = model_of(layer, make(), run_eagerly=eagerly)
    before = {name: np.array(w) for name, w in weights_by_name(layer).items()}
    fit(model, ids, cotangents)
    expected = dense_training(
        before["transform"], before["anchors"], ids, cotangents, rule, nonzeros=3
    )
    found = weights_by_name(layer)
    np.testing.assert_allclose(found["transform"], expected[0], atol=1e-5)
    np.testing.assert_allclose(found["anchors"], expected[1], atol=1e-5)
    unread = np.setdiff1d(np.arange(ROWS), ids)
    assert unread.size
    np.testing.assert_array_equal(found["transform"][unread], before["transform"][unread])
    counts = (found["transform"] > 0).sum(axis=1)
    assert (found["transform"] >= 0).all()
    assert counts.max() == 3
    assert counts.min() < 3
    assert (found["transform"] > 0).sum() == (expected[0] > 0).sum()


@pytest.mark.parametrize(
    "name", [n for n in optimizers.NAMES if BACKEND == "tensorflow" or "lazy" not in n]
)
def test_every_optimizer_keeps_rows_sparse_when_they_are_read(name, table_size):
    ids, cotangents = problem(repeats=True)
    layer = ANTEmbedding(ROWS, WIDTH, num_anchors=ANCHORS, nonzeros=2, penalty=PENALTY)
    model = model_of(layer, optimizers.get(name, 0.1))
    model.optimizer.build(model.trainable_variables)
    fit(model, ids, cotangents, epochs=2)
    vectors = model.predict_on_batch(np.arange(ROWS)[:, None])
    transform = to_numpy(layer.transform)
    assert (transform >= 0).all()
    assert ((transform > 0).sum(axis=1) <= 2).all()
    expected = transform @ to_numpy(layer.anchors)
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    served = layer.served_factors()
    np.testing.assert_allclose(to_numpy(served(np.arange(ROWS))), expected, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="missed steps are added under TensorFlow")
@pytest.mark.parametrize("name", ["adam", "amsgrad"])
def test_rows_that_missed_steps_are_read_as_the_constraint_leaves_them(
    name, every_table_is_read_by_rows
):
    """Momentum moves idle rows below zero; what is read, saved and served is not."""
    import tensorflow as tf
    from optimizer_training import stored_rows

    layer = ANTEmbedding(ROWS, WIDTH, num_anchors=ANCHORS, nonzeros=2, penalty=PENALTY)
    layer.build(None)
    optimizer = optimizers.get(name, 0.1)
    optimizer.build(layer.trainable_variables)
    rng = np.random.default_rng(0)
    for _ in range(6):
        ids = ids_of(rng.integers(0, ROWS, 5))
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids, training=True) * rng.normal(size=(5, WIDTH)))
            loss += sum(layer.losses)
        variables = [v if LEGACY else v.value for v in layer.trainable_variables]
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
    ids = np.arange(ROWS)
    moved = to_numpy(stored_rows(layer.transform) + table_of(layer.transform).correction(ids))
    assert (moved < 0).any()
    expected = np.array([nearest_sparse_row(row, 2) for row in moved.tolist()])
    vectors = to_numpy(layer(ids))
    np.testing.assert_allclose(vectors, expected @ to_numpy(layer.anchors), atol=1e-5)
    np.testing.assert_allclose(to_numpy(layer.transform), expected, atol=1e-6)
    np.testing.assert_allclose(to_numpy(layer(ids)), vectors, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs of ops are TensorFlow's")
@pytest.mark.parametrize("name", ["sgd", "adagrad", "rowwise_adagrad", "lazy_adam", "amsgrad"])
def test_a_step_touches_the_rows_of_the_batch_only(name, every_table_is_read_by_rows):
    import tensorflow as tf

    layer = ANTEmbedding(ROWS, WIDTH, num_anchors=ANCHORS)
    layer.build(None)
    optimizer = optimizers.get(name, 0.1)
    optimizer.build(layer.trainable_variables)
    variables = [v if LEGACY else v.value for v in layer.trainable_variables]

    @tf.function
    def step(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids, training=True)) + sum(layer.losses)
        gradients = tape.gradient(loss, variables)
        optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))

    graph = step.get_concrete_function(tf.TensorSpec((5,), "int64")).graph
    handle = (layer.transform if LEGACY else layer.transform.value).handle
    (inner,) = [inner for outer, inner in graph.captures if outer is handle]
    used = {op.type for op in graph.get_operations() if any(i is inner for i in op.inputs)}
    assert used <= {"ResourceGather", "ResourceScatterUpdate", "VariableShape", "NoOp", "Identity"}


@pytest.mark.parametrize("name", ["adagrad", "amsgrad"])
def test_a_saved_model_resumes(name, tmp_path):
    ids, cotangents = problem(repeats=True)
    layer = ANTEmbedding(ROWS, WIDTH, num_anchors=ANCHORS, nonzeros=2, penalty=PENALTY)
    inputs = keras.Input((1,), dtype="int32")
    model = keras.Model(inputs, keras.layers.Flatten()(layer(inputs)))
    model.compile(optimizers.get(name, 0.1), "mse")
    model.optimizer.build(model.trainable_variables)
    fit(model, ids, cotangents)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for one in (model, again):
        fit(one, ids, cotangents)
    for found, expected in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(found, expected)
    (transform,) = [w for w in again.get_weights() if w.shape == (ROWS, ANCHORS)]
    assert ((transform > 0).sum(axis=1) <= 2).all()
    assert (transform >= 0).all()


def test_evaluation_has_no_penalty():
    layer = ANTEmbedding(ROWS, WIDTH)
    layer(np.arange(5))
    assert list(layer.losses) == []


# Sizes and the served form.


def test_the_size_of_the_sheet():
    size = ANTEmbedding(1_000_000, 16, num_anchors=20, nonzeros=3).footprint()
    assert size.inference_bytes == 3_000_000 * 5 + 4 * 1_000_001 + 4 * 320 == 19_001_284
    assert size.parameters == 20_000_320
    wide = ANTEmbedding(1_000_000, 16, num_anchors=300, nonzeros=3).footprint()
    assert wide.inference_bytes == 3_000_000 * 6 + 4 * 1_000_001 + 4 * 300 * 16


def test_what_is_zero_is_not_stored():
    transform = np.zeros((50, 6))
    transform[3, [1, 5]] = 0.5, 0.25
    transform[49, 0] = 2.0
    layer = ANTEmbedding(50, 8, num_anchors=6, nonzeros=2)
    promised = layer.footprint().inference_bytes
    layer.build(None)
    randomize(layer)
    layer.transform.assign(transform.astype("float32"))
    size = layer.footprint()
    assert size.inference_bytes == 3 * 5 + 4 * 51 + 4 * 48 < promised
    served = layer.for_inference()
    weights = weights_by_name(served)
    assert weights["values"].ravel().tolist() == [0.5, 0.25, 2.0]
    assert weights["columns"].tolist() == [1, 5, 0]
    assert weights["starts"].tolist() == [0] * 4 + [2] * 46 + [3]
    assert sum(w.nbytes for w in weights.values()) == size.inference_bytes
    found = to_numpy(served(np.arange(50)))
    np.testing.assert_allclose(found, to_numpy(layer(np.arange(50))), atol=1e-6)
    assert (found[4:49] == 0).all()


def test_a_layer_of_zeros_can_be_served():
    layer = with_weights(ANTEmbedding(20, 8), transform=np.zeros((20, 16)))
    served = layer.served_factors()
    assert (to_numpy(served(np.arange(20))) == 0).all()
    assert layer.factor_bytes == 5 + 4 * 21 + 4 * 16 * 8


def test_more_than_256_anchors():
    layer = ANTEmbedding(40, 4, num_anchors=300, nonzeros=2)
    layer.build(None)
    served = layer.served_factors()
    assert weights_by_name(served)["columns"].dtype == "int16"
    ids = np.arange(40)
    np.testing.assert_allclose(to_numpy(served(ids)), to_numpy(layer(ids)), atol=1e-6)


def test_a_new_layer_has_as_many_numbers_as_it_may():
    layer = ANTEmbedding(1003, 16, num_anchors=7, nonzeros=3)
    layer.build(None)
    transform = to_numpy(layer.transform)
    assert ((transform > 0).sum(axis=1) == 3).all()
    assert abs((transform > 0).sum(axis=0) - 1003 * 3 / 7).max() < 2
    assert (transform**2).sum() / (3 * 1003) == pytest.approx(1 / (3 * 1003), rel=0.1)


def test_a_budget_holds_after_training():
    ids, cotangents = problem(repeats=True)
    # 60 rows of 9 bytes and an end are 544; four anchors 64 more.
    assert ANTEmbedding.for_budget(ROWS, WIDTH, 607) == {"num_anchors": 1, "nonzeros": 1}
    assert ANTEmbedding.for_budget(ROWS, WIDTH, 608) == {"num_anchors": 4, "nonzeros": 1}
    assert ANTEmbedding.for_budget(10_000, 16, 10_000 * 14 + 4 + 1024)["nonzeros"] == 2
    assert ANTEmbedding.for_budget(10_000, 16, 10_000 * 14 + 3 + 1024)["nonzeros"] == 1
    layer = ANTEmbedding(ROWS, WIDTH, **ANTEmbedding.for_budget(ROWS, WIDTH, 620))
    model = model_of(layer, optimizers.get("adagrad", 0.1))
    fit(model, ids, cotangents)
    stored = sum(w.nbytes for w in weights_by_name(layer.for_inference()).values())
    assert stored == layer.footprint().inference_bytes <= 620


# From a table.


def blobs(n=400, d=6, clusters=8):
    rng = np.random.default_rng(1)
    centres = rng.normal(size=(clusters, d))
    return (centres[rng.integers(0, clusters, n)] + 0.1 * rng.normal(size=(n, d))).astype("float32")


def squared_error(layer, table):
    return float(((to_numpy(layer(np.arange(len(table)))) - table) ** 2).sum())


def test_from_table_is_nearer_than_the_anchors_and_than_with_fewer_of_them():
    table = blobs()
    anchors = anchors_of(table, 8)
    clustered = squared_distances(table, anchors).min(axis=1).sum()
    # Not far from the error of the clusters that the rows were drawn from.
    assert clustered < 2 * 0.01 * table.size
    errors = []
    for nonzeros in (1, 2, 4):
        layer = ANTEmbedding.from_table(table, num_anchors=8, nonzeros=nonzeros)
        np.testing.assert_array_equal(to_numpy(layer.anchors), anchors)
        transform = to_numpy(layer.transform)
        assert (transform >= 0).all()
        assert ((transform > 0).sum(axis=1) <= nonzeros).all()
        errors.append(squared_error(layer, table))
    assert clustered > errors[0] > errors[1] > errors[2]


def test_multiples_of_a_few_vectors_come_back():
    rng = np.random.default_rng(2)
    table = np.eye(5)[np.arange(60) % 5] * rng.uniform(0.8, 1.2, size=(60, 1))
    layer = ANTEmbedding.from_table(table, num_anchors=5, nonzeros=1)
    np.testing.assert_allclose(to_numpy(layer(np.arange(60))), table, atol=1e-6)
    assert layer.num_stored == 60


def test_fewer_rows_than_anchors():
    table = np.array([[1.0, 2.0], [1.0, 2.0], [-1.0, 0.5]])
    layer = ANTEmbedding.from_table(table, num_anchors=4, nonzeros=2)
    np.testing.assert_allclose(to_numpy(layer(np.arange(3))), table, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"nonzeros": 17}, "must be at most `num_anchors`. Received: nonzeros=17, num_anchors=16"),
        ({"nonzeros": 0}, "`nonzeros` must be a positive integer"),
        ({"penalty": -1.0}, r"`penalty` must not be negative. Received: penalty=-1\.0"),
        ({"penalty": float("nan")}, "`penalty` must be a finite number"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        ANTEmbedding(50, 8, **options)
