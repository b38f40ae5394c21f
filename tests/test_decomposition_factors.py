"""Products of a short or wide row with one matrix: worked numbers, reductions, singular values."""

import numpy as np
import pytest
from runtime import gradients, randomize, to_numpy, weights_by_name

from tf_compemb import (
    EmbeddingCollection,
    FullEmbedding,
    LowRankEmbedding,
    MLETEmbedding,
)
from tf_compemb._keras import BACKEND, LEGACY
from tf_compemb.layers.decomposition import _folded

IDS = np.array([0, 1, 49, 17, 17])


def with_weights(layer, **values):
    layer.build(None)
    for name, value in values.items():
        getattr(layer, name).assign(np.asarray(value, "float32"))
    return layer


def trained_table(n=60, d=8, seed=0):
    """A table as training leaves them: singular values that fall, no structure otherwise."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=(n, d)) * 0.7 ** np.arange(d) @ rng.normal(size=(d, d))).astype("f4")


def test_the_wide_product_worked_by_hand():
    layer = with_weights(
        MLETEmbedding(1, 2, inner_dim=3),
        rows_of_ids=[[1, 2, -1]],
        projection=[[1, 0], [0, 1], [1, 1]],
    )
    np.testing.assert_array_equal(to_numpy(layer(np.array([0]))), [[0.0, 1.0]])


def test_a_square_identity_is_the_full_table():
    table = trained_table()
    full = with_weights(FullEmbedding(60, 8), embeddings=table)
    for cls, name in ((MLETEmbedding, "inner_dim"), (LowRankEmbedding, "rank")):
        layer = with_weights(cls(60, 8, **{name: 8}), rows_of_ids=table, projection=np.eye(8))
        np.testing.assert_array_equal(to_numpy(layer(IDS)), to_numpy(full(IDS)))


def test_widths_that_belong_to_the_other_method_are_refused():
    with pytest.raises(ValueError, match=r"a wider product is an MLETEmbedding.*rank=9"):
        LowRankEmbedding(50, 8, rank=9)
    with pytest.raises(ValueError, match=r"a narrower product is a LowRankEmbedding.*inner_dim=7"):
        MLETEmbedding(50, 8, inner_dim=7)
    assert MLETEmbedding(50, 8).inner_dim == 32


def test_sizes_of_the_sheet():
    size = MLETEmbedding(1_000_000, 16, inner_dim=64).footprint()
    assert (size.parameters, size.inference_bytes) == (64_001_024, 64_000_000)
    assert LowRankEmbedding(1_000_000, 16, rank=8).footprint().parameters == 8_000_128


def test_every_step_moves_all_vectors_through_the_matrix():
    """dE[y] = -rate * W1[y] W1[x]^T g, beside what row x itself gets."""
    layer = LowRankEmbedding(50, 8, rank=3)
    layer.build(None)
    randomize(layer)
    before = weights_by_name(layer)
    cotangent = np.random.default_rng(3).normal(size=(1, 8)).astype("float32")
    found = gradients(layer, [4], cotangent)
    np.testing.assert_allclose(
        found["projection"], np.outer(before["rows_of_ids"][4], cotangent), rtol=1e-5
    )
    assert np.flatnonzero(np.abs(found["rows_of_ids"]).sum(axis=1)).tolist() == [4]
    layer.projection.assign(before["projection"] - 0.1 * found["projection"])
    moved = to_numpy(layer(IDS)) - before["rows_of_ids"][IDS] @ before["projection"]
    share = before["rows_of_ids"][IDS] @ before["rows_of_ids"][4]
    np.testing.assert_allclose(moved, -0.1 * np.outer(share, cotangent), rtol=1e-3, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="sparse gradients are TensorFlow's")
def test_gradients_of_large_tables_are_of_rows(every_table_is_read_by_rows):
    import tensorflow as tf

    layer = LowRankEmbedding(50, 8, rank=3)
    layer.build(None)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(layer(IDS))
    variables = [layer.rows_of_ids, layer.projection]
    rows, matrix = tape.gradient(loss, [v if LEGACY else v.value for v in variables])
    assert isinstance(rows, tf.IndexedSlices)
    assert rows.values.shape == (len(IDS), 3)
    assert isinstance(matrix, tf.Tensor)


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_the_cut_of_a_table_has_the_least_error_there_is(rank):
    """Eckart and Young: the sum of the squared singular values that are left out."""
    table = trained_table()
    layer = LowRankEmbedding.from_table(table, rank=rank)
    error = np.sum((to_numpy(layer(np.arange(60))) - table) ** 2, dtype="float64")
    squares = np.linalg.eigvalsh(table.astype("float64").T @ table)  # Ascending.
    assert error == pytest.approx(squares[: 8 - rank].sum(), rel=1e-4, abs=1e-7)


def test_the_cut_of_a_table_is_that_of_tensorly():
    tensorly = pytest.importorskip("tensorly")
    table = trained_table()
    left, values, right = tensorly.tenalg.svd_interface(
        table, method="truncated_svd", n_eigenvecs=3
    )
    layer = LowRankEmbedding.from_table(table, rank=3)
    expected = (left * values) @ right
    np.testing.assert_allclose(to_numpy(layer(np.arange(60))), expected, atol=2e-5)


def test_a_table_of_few_rows_leaves_no_weight_without_gradient():
    table = trained_table(n=2)
    layer = LowRankEmbedding.from_table(table, rank=5)
    np.testing.assert_allclose(to_numpy(layer(np.arange(2))), table, rtol=1e-5, atol=1e-6)
    found = gradients(layer, [0, 1], np.ones((2, 8), "float32"))
    assert (np.abs(found["rows_of_ids"]) > 0).all()


@pytest.mark.parametrize("inner_dim", [8, 40])
def test_a_wide_product_starts_as_the_table_itself(inner_dim):
    table = trained_table()
    layer = MLETEmbedding.from_table(table, inner_dim=inner_dim)
    np.testing.assert_allclose(to_numpy(layer(np.arange(60))), table, rtol=1e-3, atol=1e-4)
    assert np.std(weights_by_name(layer)["projection"]) == pytest.approx(inner_dim**-0.5, rel=0.2)


def test_what_is_not_a_table_is_refused():
    with pytest.raises(ValueError, match=r"shape \(input_dim, output_dim\).*\(3,\)"):
        LowRankEmbedding.from_table(np.zeros(3), rank=1)


def test_factors_that_outweigh_the_table_are_served_as_the_table(monkeypatch):
    monkeypatch.setattr(_folded, "_CHUNK", 7)
    layer = LowRankEmbedding(9, 8, rank=5, combiner="mean", name="field")
    layer.build(None)
    randomize(layer)
    assert layer.footprint().inference_bytes == 4 * 9 * 8 < 4 * (9 * 5 + 5 * 8)
    served = layer.for_inference()
    assert isinstance(served, FullEmbedding)
    assert (served.name, served.combiner) == ("field", "mean")
    bags = np.array([[0, 8], [3, 3]])
    np.testing.assert_allclose(to_numpy(served(bags)), to_numpy(layer(bags)), rtol=1e-5, atol=1e-6)
    smaller = LowRankEmbedding(90, 8, rank=5)
    assert smaller.for_inference() is smaller


def test_a_collection_keeps_what_does_not_compress():
    """MLET is there for quality: it is never smaller than the table it becomes."""
    collection = EmbeddingCollection([500, 400], 8, "mlet")
    assert [name for name, _ in collection.field_footprints().values()] == ["mlet", "mlet"]
    assert collection.footprint().inference_bytes == 4 * 900 * 8
    plain = EmbeddingCollection([500, 400], 8, "mlet", threshold=450)
    assert [name for name, _ in plain.field_footprints().values()] == ["mlet", "full"]
