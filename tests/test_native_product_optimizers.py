"""Row optimisers with layers whose vectors are products, by the compiled kernels in one pass."""

import functools

import numpy as np
import pytest

from tf_compemb._keras import BACKEND, keras

if BACKEND != "tensorflow":
    pytest.skip("the kernels are TensorFlow's", allow_module_level=True)

import tensorflow as tf
from optimizer_training import make_optimizer, raw
from product_collections import SIZES, batch, collection
from runtime import randomize, types_of_ops

from tf_compemb import EmbeddingCollection, QREmbedding
from tf_compemb.native_kernels.reading import GRADIENTS_OF_PRODUCTS

compiled = pytest.mark.slow  # compiling takes a minute
OPS = {
    "sgd": "TfCompemb>SgdRowProducts",
    "adagrad": "TfCompemb>AdagradRowProducts",
    "rowwise_adagrad": "TfCompemb>AdagradRowProducts",
}
METHODS = ["full", "hash by 40", "qr by 4", "crt"]


def variables_of(layer):
    return [raw(v) for v in layer.trainable_variables]


def step_with(apply):
    """A step on the sum of vectors times a given array, for `apply(optimizer, pairs)` to apply."""

    def step(layer, optimizer, ids, upstream):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids, training=True) * upstream)
        gradients = tape.gradient(loss, variables_of(layer))
        apply(optimizer, list(zip(gradients, layer.trainable_variables, strict=True)))

    return step


def step_on(change):
    """A step on gradients and variables as `change` leaves them."""
    return step_with(lambda optimizer, pairs: optimizer.apply_gradients(change(pairs)))


as_they_are = step_on(lambda pairs: pairs)


def check_as_eager(make_layer, rule, step=as_they_are, args=None, rtol=1e-4, atol=1e-5, **options):
    """Compares a graph's step with the same run eagerly.

    Returns the types of the graph's ops, and how many of them are the rule's on products.
    """
    args, ends, types = args or batch(64), [], []
    for traced in (True, False):
        layer, optimizer = make_layer(), make_optimizer(rule, 0.1, **options)
        optimizer.build(layer.trainable_variables)
        function = functools.partial(step, layer, optimizer)
        if traced:
            function = tf.function(function)
            types = types_of_ops(function, *args)
            graph = function.get_concrete_function(*args).graph
            steps = [op.type for op in graph.get_operations()].count(OPS[rule])
        function(*args)
        ends.append([v.numpy() for v in variables_of(layer)])
    for got, expected in zip(*ends, strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol, atol=atol)
    return types, steps


@compiled
@pytest.mark.parametrize("rule", OPS)
@pytest.mark.parametrize("method", METHODS)
def test_optimisers_apply_products_in_one_op(kernels, rule, method):
    types, steps = check_as_eager(lambda: collection(method), rule)
    assert steps == 1
    assert "TfCompemb>SgdRows" not in types
    assert "TfCompemb>AdagradRows" not in types


def scaled(pairs):
    return [
        (tf.IndexedSlices(g.values * 2, g.indices), v) if is_sparse(g) else (g * 2, v)
        for g, v in pairs
    ]


def is_sparse(gradient):
    return isinstance(gradient, tf.IndexedSlices)


def of_the_largest(pairs):
    return [max(pairs, key=lambda pair: pair[1].shape[0])]


@compiled
@pytest.mark.parametrize("method", ["qr by 4", "crt"])
@pytest.mark.parametrize(
    ("step", "options"),
    [(step_on(scaled), {}), (step_on(of_the_largest), {}), (as_they_are, {"clipvalue": 0.01})],
)
def test_gradients_that_are_changed_or_left_out_are_written(kernels, method, step, options):
    types, _ = check_as_eager(lambda: collection(method), "sgd", step, **options)
    assert OPS["sgd"] not in types
    assert GRADIENTS_OF_PRODUCTS in types


@compiled
def test_gradients_of_a_table_read_alone_may_be_changed(kernels):
    _, steps = check_as_eager(
        lambda: collection("full"), "sgd", step_on(scaled), rtol=1e-5, atol=1e-6
    )
    assert steps == 1


@compiled
def test_gradients_of_another_type_are_applied_as_they_are(kernels):
    def halved(pairs):
        return [(tf.IndexedSlices(tf.cast(g.values, "float16"), g.indices), v) for g, v in pairs]

    types, _ = check_as_eager(
        lambda: collection("full"), "sgd", step_on(halved), rtol=1e-2, atol=1e-3
    )
    assert OPS["sgd"] not in types


@compiled
def test_another_tables_gradient_is_not_taken_for_its_own(kernels):
    layers = [EmbeddingCollection([50, 50], 3, "qr", options={"collisions": 10}) for _ in range(2)]
    variables = []
    for layer in layers:
        layer.build()
        randomize(layer)
        variables += layer.trainable_variables
    optimizer = make_optimizer("sgd", 1.0)
    optimizer.build(variables)
    before = [raw(v).numpy() for v in variables]

    @tf.function
    def one_step(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layers[0](ids, training=True))
        gradients = tape.gradient(loss, variables_of(layers[0]))
        optimizer.apply_gradients(zip(gradients, layers[1].trainable_variables, strict=True))

    one_step(tf.constant([[7, 7]]))
    after = [raw(v).numpy() for v in variables]
    assert all(np.array_equal(x, y) for x, y in zip(before[:2], after[:2], strict=True))
    assert not any(np.array_equal(x, y) for x, y in zip(before[2:], after[2:], strict=True))


@compiled
def test_tables_looked_up_twice_in_a_step_add_their_gradients_up(kernels):
    def step(layer, optimizer, ids, upstream):
        with tf.GradientTape() as tape:
            first, second = layer(ids, training=True), layer(ids[::-1], training=True)
            loss = tf.reduce_sum((first + 2 * second) * upstream)
        gradients = tape.gradient(loss, variables_of(layer))
        optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))

    check_as_eager(lambda: collection("qr by 4"), "adagrad", step)


def apply_twice(optimizer, pairs):
    optimizer.apply_gradients(pairs)
    optimizer.apply_gradients(pairs)


def change_tables_first(optimizer, pairs):
    for _, variable in pairs:
        variable.assign(variable * 0.5)
    optimizer.apply_gradients(pairs)


def change_one_in_a_branch_first(optimizer, pairs):
    variable = pairs[-1][1]
    tf.cond(tf.size(variable) > 0, lambda: raw(variable).assign_sub(raw(variable)), lambda: 0.0)
    optimizer.apply_gradients(pairs)


@compiled
@pytest.mark.parametrize("method", ["full", "qr by 4", "crt"])
@pytest.mark.parametrize("apply", [apply_twice, change_tables_first, change_one_in_a_branch_first])
def test_gradients_are_those_of_the_tables_that_were_read(kernels, method, apply):
    check_as_eager(lambda: collection(method), "sgd", step_with(apply))


@compiled
def test_two_steps_of_one_graph_are_one_op_each(kernels):
    def two_steps(layer, optimizer, ids, upstream):
        as_they_are(layer, optimizer, ids, upstream)
        as_they_are(layer, optimizer, ids[::-1], upstream)

    _, steps = check_as_eager(lambda: collection("qr by 4"), "adagrad", two_steps)
    assert steps == 2


@compiled
@pytest.mark.parametrize("method", ["hash by 40", "qr by 4", "crt"])
def test_gradients_read_after_the_step_are_those_before_it(kernels, method):
    layer = collection(method)
    ids, upstream = batch(64)

    def norms(gradients):
        return [tf.reduce_sum(tf.convert_to_tensor(g) ** 2) for g in gradients]

    def gradients_of():
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids, training=True) * upstream)
        return tape.gradient(loss, variables_of(layer))

    expected = [float(x) for x in norms(gradients_of())]
    optimizer = make_optimizer("sgd", 10.0)
    optimizer.build(layer.trainable_variables)

    @tf.function
    def one_step():
        gradients = gradients_of()
        optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))
        return norms(gradients)

    assert OPS["sgd"] in types_of_ops(one_step)
    np.testing.assert_allclose(one_step(), expected, rtol=1e-4)


@compiled
def test_gradients_that_nobody_reads_are_not_computed(kernels):
    table = tf.Variable(tf.zeros((6, 2)))
    outside = tf.constant([[6]], "int32")

    def written():
        return kernels.tf_compemb_row_product_gradients(
            [table.handle],
            [outside],
            tf.zeros((1, 1, 2)),
            rows=[6],
            width=2,
            num_fields=1,
            fields=[0],
            tables_of_entries=[0],
            dense=[True],
        )[0]

    @tf.function
    def unread():
        with tf.control_dependencies([written().op]):
            return tf.constant(7)

    assert int(unread()) == 7
    with pytest.raises(tf.errors.InvalidArgumentError, match=r"must be in \[0, 6\)"):
        tf.function(written)()


@compiled
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("rule", OPS)
def test_fit_applies_products_in_one_op(kernels, monkeypatch, rule, steps):
    optimizer, updated = make_optimizer(rule, 0.05), []
    update = type(optimizer).update_product_natively

    def record(self, product, rate):
        updated.append(len(product.variables))
        update(self, product, rate)

    monkeypatch.setattr(type(optimizer), "update_product_natively", record)
    model = keras.Sequential([keras.Input((len(SIZES),), dtype="int64"), collection("qr by 4")])
    model.compile(optimizer, "mse", steps_per_execution=steps)
    model.fit(*batch(12), batch_size=2, verbose=0)
    assert updated
    assert set(updated) == {2}


@compiled
def test_a_single_layers_step_is_one_op_too(kernels):
    def layer():
        made = QREmbedding(3001, 8, collisions=7)
        made.build()
        randomize(made)
        return made

    ids = tf.constant(np.random.default_rng(0).integers(0, 3001, (9, 4)))
    args = (ids, tf.random.normal((9, 4, 8), seed=1))
    _, steps = check_as_eager(layer, "adagrad", args=args)
    assert steps == 1
