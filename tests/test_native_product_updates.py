"""Steps of tables whose rows' products are vectors, by the compiled kernels in one pass."""

import hashlib

import numpy as np
import product_entries as oracle
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_compemb._keras import BACKEND, keras

if BACKEND != "tensorflow":
    pytest.skip("the kernels are TensorFlow's", allow_module_level=True)

import tensorflow as tf
from optimizer_training import make_optimizer, raw
from runtime import printed_with_threads, randomize, types_of_ops

from tf_compemb import EmbeddingCollection, QREmbedding
from tf_compemb.native_kernels.reading import GRADIENTS_OF_PRODUCTS

compiled = pytest.mark.slow  # compiling takes a minute
FIXTURE = [HealthCheck.function_scoped_fixture]  # `kernels` is the same in every example
OPS = {
    "sgd": "TfCompemb>SgdRowProducts",
    "adagrad": "TfCompemb>AdagradRowProducts",
    "rowwise_adagrad": "TfCompemb>AdagradRowProducts",
}
EPSILON = 1e-7  # as in the oracle

# Sizes of fields, rows of tables, entries.
LAYOUTS = {
    "one table": ([40, 900], [940], [(0, 0, 1, 40, 0), (1, 0, 1, 900, 40)]),
    "quotients and remainders": (
        [40, 900],
        [235, 8],
        [(0, 0, 4, 10, 0), (0, 1, 1, 4, 0), (1, 0, 4, 225, 10), (1, 1, 1, 4, 4)],
    ),
    "a field of one row": ([40, 9], [19, 4], [(0, 0, 4, 10, 0), (0, 1, 1, 4, 0), (1, 0, 1, 9, 10)]),
    "both of many rows": ([4000], [64, 63], [(0, 0, 63, 64, 0), (0, 1, 1, 63, 0)]),
    "three digits": ([900], [10, 9, 10], [(0, 0, 90, 10, 0), (0, 1, 10, 9, 0), (0, 2, 1, 10, 0)]),
    "each table leads once": (
        [90, 90],
        [33, 33],
        [(0, 0, 3, 30, 0), (0, 1, 1, 3, 0), (1, 0, 1, 3, 30), (1, 1, 3, 30, 3)],
    ),
}


def accumulators(rule, tables):
    return [
        np.full((len(t), 1) if rule == "rowwise_adagrad" else t.shape, 0.1, "f4") for t in tables
    ]


def random_step(sizes, rows, batch, width, seed=0):
    """Tables, ids and the gradient of the vectors."""
    rng = np.random.default_rng(seed)
    tables = [rng.normal(size=(count, width)).astype("float32") for count in rows]
    ids = (np.asarray(sizes) * rng.random((batch, len(sizes))) ** 3).astype("int64")
    return tables, ids, rng.normal(size=(batch, len(sizes), width)).astype("float32")


def step(kernels, rule, tables, sizes, entries, numbers, upstream, rate=0.25, states=None):
    """Tables and accumulators after a step by the kernels."""
    weights = [tf.Variable(table) for table in tables]
    states = [tf.Variable(s) for s in states or accumulators(rule, tables)]
    said = oracle.attributes_of(tables, sizes, entries)
    handles = [v.handle for v in weights]
    if rule == "sgd":
        kernels.tf_compemb_sgd_row_products(handles, numbers, upstream, rate, **said)
    else:
        of_states = [v.handle for v in states]
        kernels.tf_compemb_adagrad_row_products(
            handles, of_states, numbers, upstream, rate, **said, epsilon=EPSILON
        )
    return [v.numpy() for v in weights], [v.numpy() for v in states]


def check_step(kernels, rule, sizes, entries, tables, ids, upstream):
    numbers = oracle.row_numbers(entries, ids)
    moved, states = step(kernels, rule, tables, sizes, entries, numbers, upstream)
    expected, expected_states = oracle.step(rule, tables, entries, ids, upstream, 0.25)
    for got, wanted in zip(moved, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=2e-5 * np.sqrt(1 + len(ids)))
    if rule != "sgd":
        for got, wanted in zip(states, expected_states, strict=True):
            np.testing.assert_allclose(got, wanted, rtol=1e-4)


@compiled
def test_a_step_worked_by_hand(kernels):
    # Ids 5 and 4 have quotient 2 and remainders 1 and 0; the quotient's row is 3, those of the
    # remainders are 10 and 100. Gradients 1 and 2: of the quotient 1 * 100 + 2 * 10, of the
    # remainders 2 * 3 and 1 * 3.
    tables = [np.array([[1], [2], [3]], "f4"), np.array([[10], [100]], "f4")]
    entries = [(0, 0, 2, 3, 0), (0, 1, 1, 2, 0)]
    numbers = [np.array([[2], [2]], "i4"), np.array([[1], [0]], "i4")]
    upstream = np.array([[[1]], [[2]]], "f4")
    moved, _ = step(kernels, "sgd", tables, [6], entries, numbers, upstream, rate=0.5)
    assert moved[0].ravel().tolist() == [1, 2, 3 - 0.5 * 120]
    assert moved[1].ravel().tolist() == [10 - 0.5 * 6, 100 - 0.5 * 3]


@compiled
@pytest.mark.parametrize("rule", OPS)
@pytest.mark.parametrize("batch", [0, 1, 7, 700, 20_000])  # the last in several parts
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_step_is_the_oracles(kernels, rule, layout, batch):
    sizes, rows, entries = LAYOUTS[layout]
    check_step(kernels, rule, sizes, entries, *random_step(sizes, rows, batch, 8))


@compiled
@pytest.mark.parametrize("rule", OPS)
@pytest.mark.parametrize("width", [1, 3, 15, 16, 17, 32, 64, 65])
@pytest.mark.parametrize("layout", ["quotients and remainders", "three digits"])
def test_a_step_of_any_width_is_the_oracles(kernels, rule, layout, width):
    sizes, rows, entries = LAYOUTS[layout]
    check_step(kernels, rule, sizes, entries, *random_step(sizes, rows, 50, width, seed=width))


@compiled
@pytest.mark.parametrize("rule", OPS)
@given(
    sizes=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    divisor=st.integers(1, 9),
    batch=st.integers(0, 40),
    seed=st.integers(0, 9),
)
@settings(deadline=None, max_examples=60, suppress_health_check=FIXTURE)
def test_any_quotients_and_remainders(kernels, rule, sizes, divisor, batch, seed):
    entries, first = [], 0
    for f, size in enumerate(sizes):
        count = -(-size // divisor)
        entries += [(f, 0, divisor, count, first), (f, 1, 1, divisor, divisor * f)]
        first += count
    rows = [first, divisor * len(sizes)]
    check_step(kernels, rule, sizes, entries, *random_step(sizes, rows, batch, 5, seed))


def digest_of_large_steps(kernels):
    """A hash of all bits after steps in several parts."""
    digest = hashlib.sha256()
    for layout in ("quotients and remainders", "both of many rows"):
        sizes, rows, entries = LAYOUTS[layout]
        tables, ids, upstream = random_step(sizes, rows, 40_000, 9)
        numbers = oracle.row_numbers(entries, ids)
        for rule in OPS:
            for part in step(kernels, rule, tables, sizes, entries, numbers, upstream):
                digest.update(b"".join(array.tobytes() for array in part))
    return digest.hexdigest()


@compiled
def test_every_bit_is_the_same_whatever_the_number_of_threads(kernels):
    expected = digest_of_large_steps(kernels)
    assert digest_of_large_steps(kernels) == expected
    script = (
        "import test_native_product_updates as t; "
        "from tf_compemb.native_kernels import library; "
        "print(t.digest_of_large_steps(library.loaded()))"
    )
    assert printed_with_threads(7, script) == expected


@compiled
@pytest.mark.parametrize("table", [0, 1])
@pytest.mark.parametrize("number", [-1, 10, 2**31 - 1, -(2**31)])
def test_a_row_of_another_field_is_refused_and_nothing_is_written(kernels, table, number):
    sizes, rows, entries = LAYOUTS["quotients and remainders"]
    tables, ids, upstream = random_step(sizes, rows, 30, 2)
    numbers = oracle.row_numbers(entries, ids)
    numbers[table][17, 0] = number
    weights = [tf.Variable(t) for t in tables]
    with pytest.raises(tf.errors.InvalidArgumentError, match="must be those of the entries' digi"):
        kernels.tf_compemb_sgd_row_products(
            [v.handle for v in weights],
            numbers,
            upstream,
            0.1,
            **oracle.attributes_of(tables, sizes, entries),
        )
    for variable, before in zip(weights, tables, strict=True):
        np.testing.assert_array_equal(variable, before)


@compiled
@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"rate": [0.1]}, r"learning rate must be a scalar, not of shape \[1\]"),
        (
            {"upstream": np.zeros((3, 2, 3), "f4")},
            r"must be of shape \(batch, 2, 2\), not \[3,2,3\]",
        ),
        (
            {"numbers": [np.zeros((2, 2), "i4")]},
            r"of table 0 must be of shape \(3, 2\), not \[2,2\]",
        ),
        (
            {"states": [np.zeros((6, 3), "f4")]},
            r"accumulator must have the shape \[6,2\] or \[6,1\], not",
        ),
        ({"tables": [np.zeros((6,), "f4")]}, "must be float32 matrices"),
        (
            {"tables": [np.zeros((7, 2), "f4")], "states": [np.zeros((7, 1), "f4")]},
            r"Table 0 must be of shape \(6, 2\), not \(7, 2\)",
        ),
        ({"entries": [(0, 0, 1, 3, 0), (1, 0, 1, 3, 2)]}, "Entries 0 and 1 have rows in common"),
        ({"entries": [(0, 0, 1, 3, 0), (1, 0, 1, 9, 3)]}, "Entry 1 reaches beyond its table"),
    ],
)
def test_what_does_not_fit_is_refused(kernels, changed, message):
    given_ = {
        "rate": 0.1,
        "upstream": np.zeros((3, 2, 2), "f4"),
        "numbers": [np.array([[0, 3]] * 3, "i4")],
        "states": [np.zeros((6, 2), "f4")],
        "tables": [np.zeros((6, 2), "f4")],
        "entries": [(0, 0, 1, 3, 0), (1, 0, 1, 3, 3)],
        **changed,
    }
    weights = [tf.Variable(t) for t in given_["tables"]]
    states = [tf.Variable(s) for s in given_["states"]]
    said = oracle.attributes_of([np.zeros((6, 2))], [4, 4], given_["entries"])
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        kernels.tf_compemb_adagrad_row_products(
            [v.handle for v in weights],
            [v.handle for v in states],
            given_["numbers"],
            given_["upstream"],
            given_["rate"],
            **said,
            epsilon=0.0,
        )


SIZES = [43, 17, 3001, 653, 9, 2, 371]
METHODS = {
    "full": ("full", {}),
    "small": ("hash", {"collisions": 40}),
    "qr": ("qr", {"collisions": 4}),
    "crt": ("compositional", {"partitions": 2, "family": "chinese_remainder"}),
}


def collection(method):
    name, options = METHODS[method]
    layer = EmbeddingCollection(SIZES, 8, name, options=options)
    layer.build()
    randomize(layer)
    return layer


def batch(rows):
    rng = np.random.default_rng(rows)
    ids = np.stack([rng.integers(0, size, rows) for size in SIZES], axis=1)
    return tf.constant(ids), tf.constant(rng.normal(size=(*ids.shape, 8)).astype("float32"))


def variables_of(layer):
    return [raw(v) for v in layer.trainable_variables]


def make_step(layer, optimizer, change=lambda pairs: pairs):
    """A step on the sum of vectors times a given array; `change` gets gradients and variables."""
    optimizer.build(layer.trainable_variables)

    def one_step(ids, upstream):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids, training=True) * upstream)
        gradients = tape.gradient(loss, variables_of(layer))
        pairs = list(zip(gradients, layer.trainable_variables, strict=True))
        optimizer.apply_gradients(change(pairs))

    return one_step


def ends(method, optimizer, change=lambda pairs: pairs, traced=True):
    """Variables after a step, and the types of its ops."""
    layer = collection(method)
    one_step = make_step(layer, optimizer, change)
    types = set()
    if traced:
        one_step = tf.function(one_step)
        types = types_of_ops(one_step, *batch(64))
    one_step(*batch(64))
    return [v.numpy() for v in variables_of(layer)], types


@compiled
@pytest.mark.parametrize("rule", OPS)
@pytest.mark.parametrize("method", METHODS)
def test_optimisers_apply_products_in_one_op(kernels, rule, method):
    eager, _ = ends(method, make_optimizer(rule, 0.1), traced=False)
    got, types = ends(method, make_optimizer(rule, 0.1))
    assert OPS[rule] in types
    assert "TfCompemb>SgdRows" not in types
    assert "TfCompemb>AdagradRows" not in types
    for values, expected in zip(got, eager, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


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
@pytest.mark.parametrize("method", ["qr", "crt"])
@pytest.mark.parametrize(
    ("change", "options"),
    [(scaled, {}), (of_the_largest, {}), (lambda pairs: pairs, {"clipvalue": 0.01})],
)
def test_gradients_that_are_changed_or_left_out_are_written(kernels, method, change, options):
    eager, _ = ends(method, make_optimizer("sgd", 0.1, **options), change, traced=False)
    got, types = ends(method, make_optimizer("sgd", 0.1, **options), change)
    assert OPS["sgd"] not in types
    assert GRADIENTS_OF_PRODUCTS in types
    for values, expected in zip(got, eager, strict=True):
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


@compiled
def test_gradients_of_a_table_read_alone_may_be_changed(kernels):
    eager, _ = ends("full", make_optimizer("sgd", 0.1), scaled, traced=False)
    got, types = ends("full", make_optimizer("sgd", 0.1), scaled)
    assert OPS["sgd"] in types
    np.testing.assert_allclose(got[0], eager[0], rtol=1e-5, atol=1e-6)


@compiled
def test_another_tables_gradient_is_not_taken_for_its_own(kernels):
    def swapped(pairs):
        return [(g, other) for (g, _), (_, other) in zip(pairs, pairs[::-1], strict=True)]

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
    results = []
    for wrap in (tf.function, lambda function: function):
        layer = collection("qr")
        optimizer = make_optimizer("adagrad", 0.1)
        optimizer.build(layer.trainable_variables)

        @wrap
        def one_step(ids, upstream, layer=layer, optimizer=optimizer):
            with tf.GradientTape() as tape:
                first, second = layer(ids, training=True), layer(ids[::-1], training=True)
                loss = tf.reduce_sum((first + 2 * second) * upstream)
            gradients = tape.gradient(loss, variables_of(layer))
            optimizer.apply_gradients(zip(gradients, layer.trainable_variables, strict=True))

        one_step(*batch(64))
        results.append([v.numpy() for v in variables_of(layer)])
    for got, expected in zip(*results, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


@compiled
@pytest.mark.parametrize("method", ["small", "qr", "crt"])
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
    model = keras.Sequential([keras.Input((len(SIZES),), dtype="int64"), collection("qr")])
    model.compile(optimizer, "mse", steps_per_execution=steps)
    model.fit(*batch(12), batch_size=2, verbose=0)
    assert updated
    assert set(updated) == {2}


@compiled
def test_a_single_layers_step_is_one_op_too(kernels):
    layer = QREmbedding(3001, 8, collisions=7)
    layer.build()
    randomize(layer)
    one_step = tf.function(make_step(layer, make_optimizer("adagrad", 0.1)))
    ids = tf.constant(np.random.default_rng(0).integers(0, 3001, (9, 4)))
    upstream = tf.random.normal((9, 4, 8), seed=1)
    assert OPS["adagrad"] in types_of_ops(one_step, ids, upstream)
    one_step(ids, upstream)
    other = QREmbedding(3001, 8, collisions=7)
    other.build()
    randomize(other)
    make_step(other, make_optimizer("adagrad", 0.1))(ids, upstream)
    for got, expected in zip(variables_of(layer), variables_of(other), strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
