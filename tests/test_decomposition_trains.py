"""Tensor trains: worked rows, shapes, law of the cores, TT-SVD; the semi-tensor product."""

import itertools
import math

import numpy as np
import pytest
from runtime import gradients, randomize, to_numpy, weights_by_name

from tf_compemb import FPDEmbedding, FullEmbedding, LowRankEmbedding, STTEmbedding, TTEmbedding
from tf_compemb._keras import BACKEND, LEGACY
from tf_compemb.layers.decomposition import _train_layer
from tf_compemb.layers.decomposition._tensor_train import (
    CoreNumbers,
    TrainShape,
    column_factors,
    normal_tails,
    train_of_table,
    useful_ranks,
)


def with_cores(layer, *cores):
    layer.build(None)
    for k, core in enumerate(cores):
        variable = getattr(layer, f"core_{k}")
        variable.assign(np.asarray(core, "float32").reshape(variable.shape))
    return layer


def trained_table(n=60, d=8, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * 0.7 ** np.arange(d) @ rng.normal(size=(d, d))).astype("f4")


def test_a_row_worked_by_hand():
    """Id 2 of n = (2, 2) has digits (1, 0), the most significant first."""
    layer = TTEmbedding(4, 4, rank=[2], row_factors=[2, 2], column_factors=[2, 2])
    first = [np.zeros((2, 2)), [[1, 2], [3, 4]]]
    second = [[[5, 6], [7, 8]], np.zeros((2, 2))]
    with_cores(layer, first, second)
    np.testing.assert_array_equal(to_numpy(layer(np.array([2]))), [[19, 22, 43, 50]])


@pytest.mark.parametrize(
    ("second", "vector"),
    [
        ([[1], [10]], [31, 42, 75, 86]),
        ([[1, 2], [10, 20]], [31, 42, 62, 84, 75, 86, 150, 172]),
    ],
)
def test_semi_tensor_rows_worked_by_hand(second, vector):
    layer = STTEmbedding(
        1, len(vector), rank=[4], row_factors=[1, 1], column_factors=[2, len(vector) // 2]
    )
    with_cores(layer, [[1, 2, 3, 4], [5, 6, 7, 8]], second)
    np.testing.assert_array_equal(to_numpy(layer(np.array([0]))), [vector])


def test_one_core_is_the_full_table():
    table = trained_table(50)
    full = FullEmbedding(50, 8)
    full.build(None)
    full.embeddings.assign(table)
    ids = np.array([0, 49, 7, 7])
    for cls in (TTEmbedding, STTEmbedding):
        one = with_cores(cls(50, 8, num_cores=1), table)
        np.testing.assert_array_equal(to_numpy(one(ids)), to_numpy(full(ids)))


def test_one_column_and_one_row_are_low_rank():
    """s = 2, d_1 = 1, n_2 = 1: a short row times one matrix."""
    rows, matrix = trained_table(50, 3), trained_table(3, 8)
    train = TTEmbedding(50, 8, rank=[3], row_factors=[50, 1], column_factors=[1, 8])
    low_rank = LowRankEmbedding(50, 8, rank=3)
    low_rank.build(None)
    low_rank.rows_of_ids.assign(rows)
    low_rank.projection.assign(matrix)
    ids = np.arange(50)
    expected = to_numpy(low_rank(ids))
    np.testing.assert_allclose(to_numpy(with_cores(train, rows, matrix)(ids)), expected, rtol=1e-5)


def test_a_semi_tensor_step_of_one_is_the_plain_train():
    plain, stepped = TTEmbedding(1000, 16, rank=5), STTEmbedding(1000, 16, 5, 1, num_cores=3)
    plain.build(None)
    randomize(plain)
    with_cores(stepped, *(to_numpy(w) for w in plain.weights))
    ids = np.arange(1000)
    np.testing.assert_array_equal(to_numpy(stepped(ids)), to_numpy(plain(ids)))
    assert stepped.footprint() == plain.footprint()


@pytest.mark.parametrize(
    ("layer", "merges"),
    [
        (TTEmbedding(1000, 16, rank=5), {10: 1, 49: 1, 50: 2, 499: 2, 500: 3}),
        (STTEmbedding(1000, 16, 4, 2, num_cores=3), {10: 1, 50: 2, 500: 3}),
        (TTEmbedding(700, 6, rank=[3, 2, 5], num_cores=4), {1: 1, 14: 1, 15: 2, 75: 3, 600: 4}),
    ],
    ids=["tt", "stt", "four cores"],
)
def test_merged_cores_give_the_vectors_and_gradients_of_single_ones(layer, merges, monkeypatch):
    """A batch of many ids multiplies the first cores whole; the ids of a small one do not."""
    layer.build(None)
    randomize(layer)
    ids = np.random.default_rng(0).integers(0, layer.input_dim, max(merges))
    assert {m: layer._merged_cores(ids[:m]) for m in merges} == merges
    cotangent = np.random.default_rng(1).normal(size=(len(ids), layer.output_dim)).astype("f4")
    found = to_numpy(layer(ids)), gradients(layer, ids, cotangent)
    monkeypatch.setattr(_train_layer, "_MERGED_ROWS_PER_ID", 0)
    alone = to_numpy(layer(ids)), gradients(layer, ids, cotangent)
    np.testing.assert_allclose(found[0], alone[0], rtol=1e-4, atol=1e-4)
    for name, expected in alone[1].items():
        np.testing.assert_allclose(found[1][name], expected, rtol=1e-3, atol=1e-2)


def test_sizes_of_the_sheet():
    assert TTEmbedding(1_000_000, 16).footprint().parameters == 60_800
    assert STTEmbedding(1_000_000, 16, num_cores=3).footprint().parameters == 17_600
    paper = TTEmbedding(
        1_188_000, 64, [12, 14], row_factors=[120, 90, 110], column_factors=[4, 4, 4]
    )
    assert paper.footprint().parameters == 72_400
    tmall = STTEmbedding(169 * 241, 128, rank=60, row_factors=[169, 241], column_factors=[16, 8])
    assert tmall.footprint().parameters == 191_160


def test_shapes_follow_from_the_numbers_of_ids_and_columns():
    for d, count in itertools.product((1, 2, 6, 7, 16, 48, 64, 128), (1, 2, 3, 4)):
        factors = column_factors(d, count)
        assert math.prod(factors) == d
        assert len(factors) == count
    assert column_factors(64, 3) == (4, 4, 4)
    assert column_factors(32, 3) == (4, 2, 4)  # The small factor where it is paid for twice.
    assert column_factors(128, 2, step=2) == (8, 16)
    # A rank above what rows and columns of one side have adds nothing.
    assert useful_ranks(100, (4, 4, 4), (2, 2, 2)) == (8, 8)
    assert TTEmbedding(64, 8, rank=100).footprint().parameters == 4 * 2 * 8 * 2 + 8 * 4 * 2 * 8


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"row_factors": [4, 4]}, r"at least input_dim=50.*row_factors=\[4, 4\], product 16"),
        ({"column_factors": [2, 2]}, r"must be output_dim=8\. .*column_factors=\[2, 2\]"),
        ({"row_factors": [8, 8], "column_factors": [8]}, "one factor a core each"),
        ({"rank": [3]}, r"one for each of 2 pairs of cores\. Received: rank=\[3\]"),
        ({"rank": 0}, "`rank` must be a positive integer"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TTEmbedding(50, 8, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_cores": 5}, "`output_dim` must be a multiple of 16 for 5 cores of semi_tensor=2"),
        ({"rank": [3]}, r"all multiples of 2\. Received: rank=\[3\]"),
        ({"column_factors": [8, 1]}, r"all but the first multiples of 2"),
    ],
)
def test_semi_tensor_shapes_that_do_not_fit_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        STTEmbedding(50, 8, **options)


def test_numbers_of_the_tails_have_the_law_of_the_tails():
    numbers = normal_tails(np.random.default_rng(0), 200_000)
    assert len(numbers) == 200_000
    assert np.abs(numbers).min() >= 2
    assert abs(numbers.mean()) < 0.02  # A standard error is 0.005.
    assert np.mean(numbers**2) == pytest.approx(5.746, abs=0.02)
    # P(|z| > 3 given |z| > 2) = 0.0027 / 0.0455.
    assert np.mean(np.abs(numbers) > 3) == pytest.approx(0.002700 / 0.045500, rel=0.03)


@pytest.mark.parametrize("step", [1, 2])
def test_cores_give_the_full_table_s_variance_and_a_normal_shape(step):
    """Sums of few products of normal numbers have heavy tails (kurtosis 11.7 here); ours do not."""
    rng = np.random.default_rng(1)
    shape = TrainShape((100, 100, 100), (2, 2, 4), (2, 2), step)
    scale = CoreNumbers(1_000_000, shape).scale
    rank = 2 // step
    first, second, third = (
        scale * normal_tails(rng, math.prod(size) * 200_000).reshape(*size, -1)
        for size in ((rank,), (rank, rank), (rank,))
    )
    vectors = np.einsum("ax,abx,bx->x", first, second, third)
    assert vectors.var() == pytest.approx(1 / (3 * 1_000_000), rel=0.03)
    if step == 1:
        assert np.mean(vectors**4) / vectors.var() ** 2 == pytest.approx(2.7, abs=0.15)


@pytest.mark.parametrize(("n", "cores"), [(60, 2), (60, 3), (64, 3)])
def test_ranks_of_the_unfoldings_reproduce_any_table(n, cores):
    table = trained_table(n)
    layer = TTEmbedding.from_table(table, rank=1000, num_cores=cores)
    np.testing.assert_allclose(to_numpy(layer(np.arange(n))), table, atol=2e-5)


@pytest.mark.parametrize("rank", [2, 5])
def test_the_train_of_a_table_is_that_of_tensorly(rank):
    tensorly = pytest.importorskip("tensorly")
    from tensorly.decomposition import tensor_train

    table = trained_table(60).astype("float64")
    layer = TTEmbedding(60, 8, rank=rank)
    shape = layer.shape_of_train
    rows, columns = shape.row_factors, shape.column_factors
    padded = np.zeros((math.prod(rows), 8))
    padded[:60] = table
    # (n1, d1, n2, d2, ...), each pair one mode.
    modes = padded.reshape(*rows, *columns).transpose(0, 3, 1, 4, 2, 5)
    modes = modes.reshape([n * d for n, d in zip(rows, columns, strict=True)])
    theirs = tensorly.tt_to_tensor(tensor_train(modes, rank=[1, *shape.ranks, 1]))
    expected = theirs.reshape([f for pair in zip(rows, columns, strict=True) for f in pair])
    expected = expected.transpose(0, 2, 4, 1, 3, 5).reshape(-1, 8)[:60]
    found = TTEmbedding.from_table(table, rank=rank)
    np.testing.assert_allclose(to_numpy(found(np.arange(60))), expected, atol=2e-5)


def test_the_error_of_a_train_falls_with_the_rank():
    table = trained_table(200, 16)
    errors = []
    for rank in (1, 2, 4, 8, 16, 32):
        layer = TTEmbedding.from_table(table, rank=rank, num_cores=2)
        errors.append(np.sum((to_numpy(layer(np.arange(200))) - table) ** 2))
    assert errors == sorted(errors, reverse=True)
    # One singular value decomposition: the squares that are left out of the only unfolding.
    shape = TTEmbedding(200, 16, rank=4, num_cores=2).shape_of_train
    (n1, n2), (d1, d2) = shape.row_factors, shape.column_factors
    padded = np.zeros((n1 * n2, 16))
    padded[:200] = table
    unfolding = padded.reshape(n1, n2, d1, d2).transpose(0, 2, 1, 3).reshape(n1 * d1, -1)
    left_out = np.linalg.svd(unfolding, compute_uv=False)[4:]
    assert errors[2] == pytest.approx(np.sum(left_out**2), rel=1e-2)


def test_ranks_beyond_what_a_table_has_leave_finite_cores():
    shape = TrainShape((2, 30), (1, 8), (5,))
    first, second = train_of_table(trained_table(60), shape)
    assert first.shape == (2, 5)
    assert second.shape == (30, 40)
    assert np.isfinite(first).all()


def test_frequent_ids_have_rows_of_their_own():
    counts = np.arange(60) % 7
    table = trained_table(60)
    layer = TTEmbedding.from_table(table, rank=1, num_cores=2, num_frequent=8, frequencies=counts)
    # Counts of 6: ids 6, 13, ..., 55, eight of them.
    frequent = np.arange(6, 60, 7)
    np.testing.assert_array_equal(weights_by_name(layer)["frequent_ids"], frequent)
    np.testing.assert_array_equal(to_numpy(layer(frequent)), table[frequent])
    found = gradients(layer, [6, 13, 7], np.ones((3, 8), "float32"))
    np.testing.assert_array_equal(found["frequent"].any(axis=1), [True, True] + [False] * 6)
    only_frequent = gradients(layer, [6, 13], np.ones((2, 8), "float32"))
    assert not only_frequent["core_0"].any()
    assert "frequencies" not in layer.get_config()
    few = TTEmbedding(5, 8, num_frequent=8, frequencies=np.arange(5))
    assert few.num_frequent == 5  # One number for all fields of a collection.


@pytest.mark.skipif(BACKEND != "tensorflow", reason="sparse gradients are TensorFlow's")
@pytest.mark.parametrize("layer", [TTEmbedding(5000, 8), FPDEmbedding(5000, 8, rank=3)])
def test_gradients_of_large_tables_are_of_rows(layer, every_table_is_read_by_rows):
    import tensorflow as tf

    layer.build(None)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(np.array([0, 4999, 7])))
    variables = [getattr(layer, name) for name in layer.table_specs()]
    for gradient in tape.gradient(loss, [v if LEGACY else v.value for v in variables]):
        assert isinstance(gradient, tf.IndexedSlices)
        assert gradient.values.shape[0] == 3


# The decomposed layer of the review.


def test_a_shared_tensor_worked_by_hand():
    layer = FPDEmbedding(1, 3, rank=2)
    layer.build(None)
    layer.cores.assign([[2.0, -1.0]])
    layer.tensor.assign(np.array([[[1.0, 0, 3]], [[0, 4, 1]]], "float32"))
    np.testing.assert_array_equal(to_numpy(layer(np.array([0]))), [[2, -4, 5]])


def test_an_inner_rank_of_one_is_low_rank_and_ranks_trade_for_each_other():
    rows, matrix, ids = trained_table(50, 6), trained_table(6, 8), np.arange(50)
    low_rank = LowRankEmbedding(50, 8, rank=6)
    low_rank.build(None)
    low_rank.rows_of_ids.assign(rows)
    low_rank.projection.assign(matrix)
    for rank, inner_rank in ((6, 1), (3, 2), (1, 6)):
        layer = FPDEmbedding(50, 8, rank=rank, inner_rank=inner_rank)
        layer.build(None)
        layer.cores.assign(rows)
        layer.tensor.assign(matrix.reshape(rank, inner_rank, 8))
        np.testing.assert_array_equal(to_numpy(layer(ids)), to_numpy(low_rank(ids)))
        assert layer.footprint() == low_rank.footprint()


def test_the_decomposed_layer_starts_from_a_table_like_the_low_rank_one():
    table, ids = trained_table(), np.arange(60)
    found = FPDEmbedding.from_table(table, rank=2, inner_rank=2)
    expected = LowRankEmbedding.from_table(table, rank=4)
    np.testing.assert_array_equal(to_numpy(found(ids)), to_numpy(expected(ids)))
    with pytest.raises(ValueError, match=r"without collisions only\. Received: collisions=4"):
        FPDEmbedding.from_table(table, collisions=4)


def test_the_decomposed_layer_reaches_small_budgets_by_collisions():
    assert FPDEmbedding.for_budget(10_000, 16, 4 * (3 * 10_016)) == {"rank": 3}
    small = FPDEmbedding.for_budget(10_000, 16, 4 * 10_000 * 16 // 60)
    assert small["rank"] == 8
    assert small["collisions"] > 100  # The large remainder table.
    assert FPDEmbedding(1_000_000, 128).footprint().ratio == pytest.approx(15.998, abs=1e-3)
    sheet = FPDEmbedding(1_000_000, 16).footprint()
    assert (sheet.parameters, sheet.inference_bytes) == (8_000_128, 32_000_512)
