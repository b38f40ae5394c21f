"""Equalities between the hashing methods and others, cases worked by hand, sizes from papers."""

import numpy as np
import pytest
from runtime import randomize, to_numpy, weights_by_name

from tf_compemb import HashEmbedding, MEmComEmbedding

IDS = np.array([0, 1, 49, 17, 17])


def random(*shape):
    return np.random.default_rng(sum(shape)).normal(size=shape).astype("float32")


def with_weights(layer, **values):
    layer.build(None)
    for name, value in values.items():
        getattr(layer, name).assign(np.asarray(value, "float32"))
    return to_numpy(layer(IDS if layer.input_dim == 50 else np.arange(layer.input_dim)))


def test_memcom_s_size_in_the_paper_s_setting():
    layer = MEmComEmbedding(1_000_000, 16, num_buckets=50_000)
    assert layer.footprint().parameters == 1_800_000
    assert layer.footprint().inference_bytes == 7_200_000
    biased = MEmComEmbedding(1_000_000, 16, num_buckets=50_000, bias=True)
    assert biased.footprint().parameters == 2_800_000


def test_memcom_worked_by_hand():
    rows, multipliers, biases = [[1, -2, 3]], [[0.5]], [[0.1]]
    plain = with_weights(MEmComEmbedding(1, 3, num_buckets=1), shared=rows, multipliers=multipliers)
    np.testing.assert_allclose(plain, [[0.5, -1.0, 1.5]])
    layer = MEmComEmbedding(1, 3, num_buckets=1, bias=True)
    biased = with_weights(layer, shared=rows, multipliers=multipliers, biases=biases)
    np.testing.assert_allclose(biased, [[0.6, -0.9, 1.6]], rtol=1e-6)


def test_memcom_starts_as_the_hashing_trick():
    table = random(13, 6)
    memcom = with_weights(MEmComEmbedding(50, 6, num_buckets=13, bias=True), shared=table)
    hashed = with_weights(HashEmbedding(50, 6, num_buckets=13), embeddings=table)
    np.testing.assert_array_equal(memcom, hashed)


@pytest.mark.parametrize("bias", [False, True])
def test_memcom_s_buckets_have_rank_one_beside_the_bias(bias):
    layer = MEmComEmbedding(50, 6, num_buckets=7, bias=bias)
    layer.build(None)
    randomize(layer)
    table = to_numpy(layer(np.arange(50)))
    assert len(np.unique(table.round(5), axis=0)) == 50
    for bucket in range(7):
        strengths = np.linalg.svd(table[bucket::7], compute_uv=False)
        assert strengths[1 + bias] < 1e-5 * strengths[0]
        assert strengths[int(bias)] > 0.01 * strengths[0]


def test_memcom_from_a_table_of_its_own_form_is_exact_and_else_the_best():
    shared, multipliers, biases = random(7, 6), random(50, 1), random(50, 1) * 2
    table = shared[np.arange(50) % 7] * multipliers
    again = MEmComEmbedding.from_table(table, num_buckets=7)
    np.testing.assert_allclose(to_numpy(again(np.arange(50))), table, atol=2e-6)
    # What all columns of a shared row have in common is the bias's.
    again = MEmComEmbedding.from_table(table + biases, num_buckets=7, bias=True)
    np.testing.assert_allclose(to_numpy(again(np.arange(50))), table + biases, atol=4e-6)
    noise = random(50, 6)
    for bias in (False, True):
        near = to_numpy(MEmComEmbedding.from_table(noise, num_buckets=7, bias=bias)(np.arange(50)))
        for bucket in range(7):
            rows = noise[bucket::7]
            rows = rows - rows.mean(axis=1, keepdims=True) * bias
            lost = np.sum(np.linalg.svd(rows, compute_uv=False)[1:] ** 2)
            assert np.sum((noise - near)[bucket::7] ** 2) == pytest.approx(lost, rel=1e-4)


@pytest.mark.parametrize("options", [{}, {"hash_function": "universal", "seed": 3}], ids=str)
def test_hash_from_a_table_averages_the_rows_that_share(options):
    table = random(50, 6)
    layer = HashEmbedding.from_table(table, num_buckets=7, **options)
    vectors, rows = to_numpy(layer(np.arange(50))), weights_by_name(layer)["embeddings"]
    shared = [np.flatnonzero((vectors == row).all(axis=1)) for row in rows]
    assert sorted(np.concatenate(shared)) == list(range(50))
    for members, row in zip(shared, rows, strict=True):
        if members.size:
            np.testing.assert_allclose(row, table[members].mean(axis=0), rtol=1e-5, atol=1e-6)


def test_a_method_that_cannot_start_from_a_table_says_so():
    from tf_compemb import QREmbedding

    with pytest.raises(NotImplementedError, match="QREmbedding cannot start from a trained table"):
        QREmbedding.from_table(random(50, 6))
    with pytest.raises(ValueError, match=r"Received: shape \(50,\)"):
        HashEmbedding.from_table(random(50))
