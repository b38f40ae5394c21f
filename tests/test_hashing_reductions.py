"""Equalities between the hashing methods and others, cases worked by hand, sizes from papers."""

import numpy as np
import pytest
from runtime import randomize, to_numpy, weights_by_name

from tf_compemb import (
    BinaryCodeHashEmbedding,
    CompositionalEmbedding,
    FrequencyDoubleHashEmbedding,
    FullEmbedding,
    HashEmbedding,
    HashEmbeddings,
    MEmComEmbedding,
    QREmbedding,
)
from tf_compemb._keras import BACKEND
from tf_compemb.partitions import mixed_radix

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


def test_binary_code_blocks_of_the_papers_example():
    """9999 is 0b10_0111_0000_1111."""
    seven = BinaryCodeHashEmbedding(2**24, 4, block_bits=7)
    assert [int(b) for b in seven.blocks(9999)] == [15, 78, 0, 0]
    skip = BinaryCodeHashEmbedding(2**24, 4, block_bits=3, layout="skip")
    assert [int(b) for b in skip.blocks(9999)] == [3, 3, 3, 1, 0, 2, 0, 0]
    for layer in (seven, skip):
        specs = layer.table_specs().values()
        largest = [int(b) for b in layer.blocks(2**24 - 1)]
        assert [spec.rows - 1 for spec in specs] == largest


@pytest.mark.skipif(BACKEND == "jax", reason="JAX cuts ids to 32 bits by default")
def test_binary_code_is_exact_above_32_bits():
    layer = BinaryCodeHashEmbedding(2**40, 4, block_bits=10)
    value = 0b1000000001_0000000010_1111111111_0000000000
    assert [int(b) for b in layer.blocks(np.int64(value))] == [0, 1023, 2, 513]


def test_binary_code_in_succession_is_the_sum_over_digits():
    tables = random(4, 6), random(4, 6) + 1, random(4, 6) - 1
    code = BinaryCodeHashEmbedding(50, 6, block_bits=2)
    digits = CompositionalEmbedding(50, 6, mixed_radix(50, [4, 4, 4]), "add")
    names = [f"partition_{j}" for j in range(3)]
    np.testing.assert_array_equal(
        with_weights(code, **{f"block_{j}": tables[j] for j in range(3)}),
        with_weights(digits, **dict(zip(names, tables, strict=True))),
    )


def test_binary_code_of_one_block_is_the_full_table():
    table = random(50, 6)
    one = with_weights(BinaryCodeHashEmbedding(50, 6, block_bits=99), block_0=table)
    np.testing.assert_array_equal(one, table[IDS])


def test_binary_code_sizes_and_what_sharing_loses():
    per_block = BinaryCodeHashEmbedding(2**20, 16, block_bits=10).footprint()
    assert (per_block.parameters, per_block.inference_bytes) == (32_768, 131_072)
    shared = BinaryCodeHashEmbedding(2**20, 16, block_bits=10, shared=True).footprint()
    assert (shared.parameters, shared.inference_bytes) == (16_384, 65_536)
    # 10 bits reach 977 rows of the second table for a million ids.
    assert BinaryCodeHashEmbedding(10**6, 16, 10).footprint().parameters == (1024 + 977) * 16
    layer = BinaryCodeHashEmbedding(256, 4, block_bits=4, shared=True)
    layer.build(None)
    randomize(layer)
    table = to_numpy(layer(np.arange(256)))
    assert len(np.unique(table.round(4), axis=0)) == 136
    np.testing.assert_array_equal(table[0x12], table[0x21])


def test_hash_embeddings_worked_by_hand():
    layer = HashEmbeddings(50, 3, num_buckets=10, seed=1)
    layer.build(None)
    first, second = (int(h.classes(np.array([7]), 50)[0]) for h in layer.hashes)
    assert first != second
    rows = np.zeros((10, 3), "float32")
    rows[first], rows[second] = (1, 0, 2), (0, 4, -2)
    layer.shared.assign(rows)
    layer.importances.assign(np.tile(np.float32([0.5, 0.25]), (50, 1)))
    np.testing.assert_array_equal(to_numpy(layer(np.array([7]))), [[0.5, 1.0, 0.5]])


def test_one_hash_embedding_of_weight_one_is_the_hashing_trick_and_else_scales_it():
    table = random(7, 6)
    hashed = with_weights(
        HashEmbedding(50, 6, num_buckets=7, hash_function="universal", seed=3), embeddings=table
    )
    one = HashEmbeddings(50, 6, num_buckets=7, num_hashes=1, seed=3)
    np.testing.assert_array_equal(with_weights(one, shared=table), hashed)
    weights = random(50, 1)
    np.testing.assert_array_equal(with_weights(one, importances=weights), hashed * weights[IDS])


def test_hash_embeddings_sizes():
    size = HashEmbeddings(1_000_000, 16, num_buckets=50_000).footprint()
    assert (size.parameters, size.inference_bytes) == (2_800_000, 11_200_000)
    half = HashEmbeddings.for_budget(1_000_000, 16, 64_000_000 // 60)
    # 1,066,666 bytes hold 266,666 numbers: half are 8,333 rows, half the weights of 66,664 ids.
    assert half == {"num_buckets": 8333, "num_importances": 66_664}


def test_double_hash_of_all_frequent_ids_is_the_full_table():
    table = random(50, 6)
    layer = FrequencyDoubleHashEmbedding(50, 6, num_frequent=50)
    np.testing.assert_array_equal(with_weights(layer, frequent=table), table[IDS])
    assert layer.footprint() == FullEmbedding(50, 6).footprint()


def test_double_hash_without_frequent_ids_and_one_hash_is_the_hashing_trick():
    table = random(7, 6)
    layer = FrequencyDoubleHashEmbedding(50, 6, num_frequent=0, num_buckets=7, seed=3)
    universal = HashEmbedding(50, 6, num_buckets=7, hash_function="universal", seed=3)
    np.testing.assert_array_equal(
        with_weights(layer, tail_0=table, tail_1=np.zeros((7, 6))),
        with_weights(universal, embeddings=table),
    )
    qr = FrequencyDoubleHashEmbedding(50, 6, num_frequent=0, num_buckets=7, tail="qr")
    np.testing.assert_array_equal(
        with_weights(qr, tail_0=table, tail_1=random(8, 6)),
        with_weights(
            QREmbedding(50, 6, modulus=7, operation="add"), remainder=table, quotient=random(8, 6)
        ),
    )


def test_double_hash_sizes():
    layer = FrequencyDoubleHashEmbedding(10**6, 16, num_frequent=10_000, num_buckets=20_000)
    size = layer.footprint()
    assert (size.parameters, size.index_bytes) == (800_000, 40_000)
    assert size.inference_bytes == 3_240_000


def test_rare_ids_share_both_rows_as_often_as_of_two_random_functions():
    """N^2 / (2 m^2) pairs are expected of N random ids; the count is about Poisson."""
    layer = FrequencyDoubleHashEmbedding(2**30, 2, num_frequent=0, num_buckets=1000)
    ids = np.random.default_rng(0).choice(2**30, 40_000, replace=False)
    first, second = (p.classes(ids, 2**30) for p in layer.tail_partitions)
    counts = np.bincount(first * 1000 + second)
    pairs = int((counts * (counts - 1) // 2).sum())
    expected = 40_000**2 / (2 * 1000**2)
    assert abs(pairs - expected) < 5 * np.sqrt(expected)


def test_double_hash_from_a_table_is_near_the_least_squares():
    table = random(50, 6)
    layer = FrequencyDoubleHashEmbedding.from_table(table, num_frequent=5, num_buckets=12)
    found = to_numpy(layer(np.arange(50)))
    np.testing.assert_array_equal(found[:5], table[:5])
    first, second = (p.classes(np.arange(5, 50), 50) for p in layer.tail_partitions)
    design = np.concatenate([np.eye(12)[first], np.eye(12)[second]], axis=1)
    best = design @ np.linalg.lstsq(design, table[5:], rcond=None)[0]
    least = np.sum((best - table[5:]) ** 2)
    assert least <= np.sum((found - table)[5:] ** 2) * (1 + 1e-6) < 1.02 * least


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
