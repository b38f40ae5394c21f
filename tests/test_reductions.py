"""Equalities between methods, gradients of a wrong initialiser excluded: strong and cheap."""

import numpy as np
import pytest
from runtime import randomize, to_numpy, weights_by_name

from tf_compemb import (
    CompositionalEmbedding,
    FullEmbedding,
    HashEmbedding,
    PathEmbedding,
    QREmbedding,
)
from tf_compemb.partitions import Naive, Quotient, Remainder, UniversalHash, mixed_radix

IDS = np.array([0, 1, 49, 17, 17])


def with_weights(layer, *values):
    layer.build(None)
    layer.set_weights([np.asarray(v, "float32") for v in values])
    return to_numpy(layer(IDS))


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def test_one_naive_partition_is_the_full_table():
    table = random(50, 6)
    full = with_weights(FullEmbedding(50, 6), table)
    np.testing.assert_array_equal(
        with_weights(CompositionalEmbedding(50, 6, [Naive()]), table), full
    )
    np.testing.assert_array_equal(with_weights(HashEmbedding(50, 6, collisions=1), table), full)
    np.testing.assert_array_equal(full, table[IDS])


@pytest.mark.parametrize("operation", ["mult", "add", "concat", "feature"])
def test_two_digits_are_quotient_and_remainder(operation):
    width = 3 if operation == "concat" else 6
    remainder, quotient = random(7, width), random(8, width)
    qr = with_weights(QREmbedding(50, 6, 7, operation), remainder, quotient)
    digits = CompositionalEmbedding(50, 6, mixed_radix(50, [7, 8]), operation)
    np.testing.assert_array_equal(with_weights(digits, remainder, quotient), qr)
    named = CompositionalEmbedding(50, 6, [Remainder(7), Quotient(7)], operation)
    np.testing.assert_array_equal(with_weights(named, remainder, quotient), qr)


def test_a_modulus_of_all_ids_is_the_full_table():
    table = random(50, 6)
    qr = with_weights(QREmbedding(50, 6, modulus=50, operation="add"), table, np.zeros((1, 6)))
    np.testing.assert_array_equal(qr, table[IDS])


def test_collisions_above_the_table_leave_rows_unused():
    layer = QREmbedding(3, 4, collisions=8)
    assert layer.footprint().parameters == (8 + 1) * 4
    layer.build(None)
    randomize(layer)
    assert len(np.unique(to_numpy(layer(np.arange(3))), axis=0)) == 3
    assert HashEmbedding(3, 4, collisions=8).footprint().parameters == 4


def test_diagonal_linear_paths_are_products_and_shifted_identities_are_sums():
    base, multipliers = random(13, 6), random(4, 6)
    path = PathEmbedding(50, 6, collisions=4, hidden_units=())
    diagonal = np.stack([np.diag(m) for m in multipliers])
    got = with_weights(path, base, diagonal, np.zeros((4, 6)))
    mult = with_weights(QREmbedding(50, 6, 4), multipliers, base)
    np.testing.assert_allclose(got, mult, rtol=1e-6)
    got = with_weights(path, base, np.stack([np.eye(6)] * 4), multipliers)
    add = with_weights(QREmbedding(50, 6, 4, "add"), multipliers, base)
    np.testing.assert_allclose(got, add, rtol=1e-6)


def test_the_linear_path_worked_by_hand():
    path = PathEmbedding(2, 2, collisions=2, hidden_units=())
    path.build(None)
    kernel = np.stack([np.array([[1, 0], [1, 2]]), np.zeros((2, 2))])  # A = [[1, 1], [0, 2]]
    path.set_weights([np.array([[1.0, 2.0]]), kernel, np.array([[0, 1], [0, 0]])])
    np.testing.assert_array_equal(to_numpy(path(np.array([0]))), [[3.0, 5.0]])


def test_quotient_remainder_worked_by_hand():
    expected = {"mult": [3, -2], "add": [4, 1], "concat": [1, 2, 3, -1]}
    for operation, vector in expected.items():
        layer = QREmbedding(10, len(vector), 4, operation)
        layer.build(None)
        remainder, quotient = np.zeros((4, 2)), np.zeros((3, 2))
        remainder[3], quotient[1] = (1, 2), (3, -1)
        layer.set_weights([remainder, quotient])
        np.testing.assert_array_equal(to_numpy(layer(np.array([7]))), [vector])


def test_the_universal_hash_layer_reads_the_rows_of_its_partition():
    layer = HashEmbedding(1000, 4, collisions=10, hash_function="universal", seed=9)
    layer.build(None)
    table = weights_by_name(layer)["embeddings"]
    rows = UniversalHash(100, seed=9).classes(IDS, 1000)
    np.testing.assert_array_equal(to_numpy(layer(IDS)), table[rows])
