"""LMA: signatures by hand and by sets, the share of common numbers, fields of one memory."""

import numpy as np
import pytest
from hashing_formulas import lma, minhash_signatures, sampled_ids
from runtime import ids_of, randomize, to_numpy, weights_by_name

from tf_compemb import EmbeddingCollection, LMAEmbedding, ROBEEmbedding
from tf_compemb._keras import LEGACY, keras
from tf_compemb.layers.hashing import _minhash


def built(cls, *args, **kwargs):
    layer = cls(*args, **kwargs)
    layer.build(None)
    randomize(layer)
    return layer


def places(layer):
    """Where the numbers of all vectors are in the memory, (n, d)."""
    size = layer.memory_size
    layer.memory.assign(np.arange(size, dtype="float32")[:, None])
    return to_numpy(layer(np.arange(layer.input_dim))).astype(int)


def test_a_key_worked_by_hand():
    """2-bit minhashes 1, 3, 2, of which the slots 0 and 2 make 1 + 2 * 4."""
    weights = _minhash.key_weights(np.array([[0, 2], [2, 1]]), 3, bits=2)
    assert (np.array([1, 3, 2]) @ weights).tolist() == [[9, 2 + 3 * 4]]
    # 5 digits of 4 bits are two parts.
    long = _minhash.key_weights(np.array([[4, 3, 2, 1, 0]]), 6)
    assert (np.array([1, 2, 3, 4, 5, 15]) @ long)[:, 0].tolist() == [0x2345, 1]


def test_signatures_by_sets_of_rows():
    sample = _minhash.checked_sample(sampled_ids(97), 97)
    wanted = _minhash.signed_ids(sample, 9)
    packed = _minhash.signatures(wanted, sample, 6, 5)
    found = {
        int(i): [*(byte % 16), *(byte // 16)]
        for i, byte in zip(wanted.ravel(), packed.reshape(-1, 3), strict=True)
        if i >= 0
    }
    assert found == minhash_signatures(97, 9, 6, 5)
    assert (packed[wanted < 0] == 0).all()
    assert all(i % 9 == b for b, ids in enumerate(wanted.tolist()) for i in ids if i >= 0)


def test_signatures_stay_the_same_for_ever():
    sample = _minhash.checked_sample([3, 1, 3, 1, 4, 4], 5)
    wanted = _minhash.signed_ids(sample, 1)
    assert wanted.tolist() == [[1, 3, 4, -1]]
    assert _minhash.signatures(wanted, sample, 4, 0).tolist() == [
        [[22, 4], [11, 125], [49, 254], [0, 0]]
    ]


def test_other_lengths_and_seeds_against_the_formula():
    options = {"num_minhashes": 6, "key_length": 5, "seed": 3}
    layer = built(LMAEmbedding, 97, 4, memory_size=37, sampled_ids=sampled_ids(97), **options)
    expected = lma(weights_by_name(layer), range(97), 97, 6, 5, 3)
    np.testing.assert_array_equal(to_numpy(layer(np.arange(97))), expected)
    assert layer.footprint().index_bytes == 12 * (4 + 3)  # 9 vectors.


def test_ids_in_fewer_than_two_rows_have_no_signature():
    sample = _minhash.checked_sample([[1, 1], [2, 3], [3, 2]], 5)
    assert sorted(_minhash.signed_ids(sample, 1).ravel().tolist()) == [-1, -1, 2, 3]
    empty = _minhash.checked_sample(np.zeros(0, "int64"), 5)
    assert (_minhash.signed_ids(empty, 2) == -1).all()


@pytest.mark.parametrize("options", [{"num_signatures": 0}, {"sampled_ids": None}])
def test_without_signatures_it_is_robe_with_blocks_of_one(options):
    lma = built(LMAEmbedding, 500, 8, memory_size=301, seed=4, **options)
    robe = built(ROBEEmbedding, 500, 8, memory_size=301, seed=4, block_size=1, signs=False)
    ids = np.arange(500)
    np.testing.assert_array_equal(to_numpy(lma(ids)), to_numpy(robe(ids)))
    assert lma.footprint().index_bytes == (0 if "num_signatures" in options else 40 * 12)


def pairs_of_rows(count, both, either):
    """A sample in which ids 2p and 2p + 1 have `both` rows in common and `either` together."""
    rows = []
    for p in range(count):
        rows += [[2 * p, 2 * p + 1]] * both
        rows += [[2 * p, 2 * p], [2 * p + 1, 2 * p + 1]] * ((either - both) // 2)
    return np.array(rows)


@pytest.mark.parametrize(("both", "either"), [(0, 4), (2, 4), (6, 8)])
@pytest.mark.parametrize("length", [1, 2, 4])
def test_pairs_share_as_many_numbers_as_their_rows_say(both, either, length):
    """`g + (1 - g) / m`, `g = (J + (1 - J) / 16)^K`, for 500 pairs of Jaccard index J."""
    layer = LMAEmbedding(
        1000,
        16,
        memory_size=16_001,
        key_length=length,
        sampled_ids=pairs_of_rows(500, both, either),
    )
    layer.build(None)
    kept = set(to_numpy(layer.signed_ids).ravel().tolist())
    assert kept == set(range(1000))
    where = places(layer)
    shared = (where[::2] == where[1::2]).mean(axis=1)
    jaccard = both / either
    g = (jaccard + (1 - jaccard) / 16) ** length
    expected = g + (1 - g) / 16_001
    assert shared.mean() == pytest.approx(expected, abs=4 * shared.std() / 500**0.5 + 1e-3)


def test_ids_of_the_same_rows_have_equal_vectors_and_others_differ():
    layer = LMAEmbedding(20, 8, memory_size=97, sampled_ids=pairs_of_rows(5, 3, 3))
    layer.build(None)
    where = places(layer)
    np.testing.assert_array_equal(where[:10:2], where[1:10:2])
    assert len(np.unique(where, axis=0)) == 5 + 10


FIELDS = {"user": 60, "city": 40, "shop": 50}
# A user always goes to the same shop, in any city.
USERS = np.arange(300) * 7 % 30
SAMPLE = {"user": USERS, "city": np.arange(300) % 40, "shop": USERS + 5}


def collection_of(**kwargs):
    return EmbeddingCollection(FIELDS, 8, "lma", threshold=0, **kwargs)


def test_fields_of_one_memory_share_what_their_rows_share():
    asked = []

    def sampled(field):
        asked.append(field)
        return SAMPLE[field]

    collection = collection_of(sampled_ids=sampled, options={"collisions": 1})
    collection.build(None)
    assert asked == list(FIELDS)
    randomize(collection)
    users = np.arange(30)
    vectors = to_numpy(collection(ids_of(np.stack([users, users, users + 5], axis=1))))
    np.testing.assert_array_equal(vectors[:, 0], vectors[:, 2])
    assert (vectors[:, 0] != vectors[:, 1]).any(axis=1).all()
    # Ids that are in no row of the sample: hashed with the number of their field.
    rest = to_numpy(collection(ids_of([[45, 0, 45]])))
    assert (rest[0, 0] != rest[0, 2]).any()
    one = to_numpy(collection.field_vectors("shop", users + 5))
    np.testing.assert_array_equal(one, vectors[:, 2])
    size = collection.footprint()
    assert size.parameters == 150 * 8
    assert size.index_bytes == 12 * (60 + 40 + 52)
    stored = sum(to_numpy(w).nbytes for w in collection.weights)
    assert stored == size.training_bytes == size.inference_bytes
    assert "sampled_ids" not in collection.get_config()


def test_a_pool_s_file_holds_each_field_s_signatures(tmp_path):
    def model_of(sampled):
        inputs = keras.Input((3,), dtype="int32")
        return keras.Model(inputs, collection_of(sampled_ids=sampled)(inputs))

    source, target = model_of(SAMPLE.get), model_of(None)
    randomize(source.layers[-1])
    ids = np.stack([np.arange(40), np.arange(40), np.arange(40)], axis=1)
    source.save_weights(tmp_path / "model.weights.h5")
    target.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(target.predict_on_batch(ids), source.predict_on_batch(ids))
    store = {}
    source.layers[-1].save_own_variables(store)
    names = ("memory", "signatures", "signed_ids")
    assert sorted(store) == sorted(f"{field}/{name}" for field in FIELDS for name in names)
    alone = _minhash.signed_ids(SAMPLE["shop"][:, None], 4)  # 13 vectors.
    np.testing.assert_array_equal(store["shop/signed_ids"], alone)


def test_large_ids_are_exact():
    n = 2**24 + 10
    sample = np.array([2**24, 2**24 + 1, 2**24 + 3] * 2)
    layer = LMAEmbedding(n, 4, memory_size=64, sampled_ids=sample)
    layer.build(None)
    kept = to_numpy(layer.signed_ids)
    assert sorted(kept[kept >= 0].tolist()) == sample[:3].tolist()
    assert layer.footprint().index_bytes == 16 * 12
    randomize(layer)
    vectors = to_numpy(layer(np.array([2**24, 2**24 + 1, 2**24 + 2, 2**24 + 3])))
    assert len(np.unique(vectors, axis=0)) == 4


def test_sizes():
    # 62,500 vectors, so as many signatures, of 8 bytes and an id of 4.
    layer = LMAEmbedding(1_000_000, 16, memory_size=1_000_000)
    size = layer.footprint()
    assert (size.parameters, size.inference_bytes) == (1_000_000, 4_000_000 + 12 * 62_500)
    chosen = LMAEmbedding.for_budget(1_000_000, 16, 64_000, sampled_ids=[1, 2])
    assert chosen == {"memory_size": 13_468, "sampled_ids": [1, 2]}  # 53,872 + 12 * 844 = 64,000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_minhashes": 7}, "must be even and at least `key_length`"),
        ({"num_minhashes": 4}, "num_minhashes=4, key_length=8"),
        ({"num_signatures": -1}, "`num_signatures` must be 0 or a positive integer. Received: "),
        ({"sampled_ids": [0.5]}, "integers of shape .* Received: shape .1,., dtype float64"),
        ({"sampled_ids": [[[1]]]}, r"Received: shape \(1, 1, 1\)"),
        ({"sampled_ids": [3, 10]}, r"must be in \[0, 10\). Received: ids from 3 to 10"),
        ({"sampled_ids": [-1, 1]}, "ids from -1 to 1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        LMAEmbedding(10, 4, **options)


@pytest.mark.skipif(not LEGACY, reason="the training program needs tf_keras")
def test_a_run_s_sample_is_of_its_training_rows(tmp_path):
    from click_rows import write_rows

    from tf_compemb.data import open_or_prepare
    from tf_compemb.training.build import build_collection
    from tf_compemb.training.options import TrainingOptions
    from tf_compemb.training.row_sample import RowSample

    data = open_or_prepare(write_rows(tmp_path / "rows.txt", 1400), tmp_path / "cache")
    features, _ = data.arrays("train")
    rows = features["categorical"]

    def sorted_rows(sample):
        ids = np.stack([sample(f"C{i}") for i in range(1, 27)], axis=1)
        assert ids.dtype == "int32"
        return sorted(ids.tolist())

    assert sorted_rows(RowSample(data, seed=3)) == sorted(rows.tolist())
    blocks = [rows[start : start + 256] for start in range(0, len(rows), 256)]
    first = {}
    for seed in range(6):
        # The first block of the seed's order.
        found = sorted_rows(RowSample(data, seed=seed, rows=150))
        (first[seed],) = [
            b for b, block in enumerate(blocks) if found == sorted(block[:150].tolist())
        ]
        assert found == sorted_rows(RowSample(data, seed=seed, rows=150))
    assert len(set(first.values())) > 1

    options = TrainingOptions(embedding=("lma",), dim=4, threshold=0, seed=3)
    collection = build_collection(options, data.cardinalities, data)
    collection.build(None)
    kept = weights_by_name(collection)["signed_ids"]
    alone = built(LMAEmbedding, data.cardinalities[0], 4, sampled_ids=rows[:, 0])
    np.testing.assert_array_equal(kept[: alone.num_buckets], to_numpy(alone.signed_ids))
