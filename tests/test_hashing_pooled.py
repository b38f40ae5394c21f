"""Methods whose fields share one memory: the collection's pool, and each method's own promises."""

import numpy as np
import pytest
from hashing_formulas import chunk_rows, robe
from runtime import compiled, gradients, ids_of, ops_reading, randomize, to_numpy, weights_by_name

from tf_compemb import EmbeddingCollection, HashEmbedding, ROBEEmbedding, UnifiedEmbedding
from tf_compemb._keras import BACKEND, keras

FIELDS = {"user": 1000, "city": 40, "item": 500}
IDS = np.array([[999, 0, 12], [0, 39, 499], [17, 17, 17]])
SPECS = {
    "unified": {"embedding": "unified"},
    "robe": {"embedding": "robe", "options": {"block_size": 3}},
}
specs = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def make(spec, **kwargs):
    collection = EmbeddingCollection(FIELDS, 6, threshold=0, **spec, **kwargs)
    collection.build(None)
    return collection


def memory_of(collection):
    (variable,) = collection.weights
    return to_numpy(variable)


def expected(spec, memory, field, ids):
    if spec["embedding"] == "robe":
        return robe({"memory": memory}, ids, 3, 6, field=field)
    rows = chunk_rows(ids, len(memory), 2, field=field)
    return np.concatenate([memory[r] for r in rows], axis=-1)


@specs
@pytest.mark.parametrize("fused", [True, False])
def test_fields_share_one_memory_as_large_as_their_parts(spec, fused):
    collection = make(spec, fused=fused)
    randomize(collection)
    memory = memory_of(collection)
    assert memory.size == (250 + 10 + 125) * 6 == collection.footprint().parameters
    assert memory.nbytes == collection.footprint().inference_bytes
    vectors = to_numpy(collection(IDS))
    also = to_numpy(compiled(collection)(ids_of(IDS)))
    np.testing.assert_allclose(also, vectors, rtol=1e-6)
    for position, field in enumerate(FIELDS):
        by_hand = expected(spec, memory, position, IDS[:, position])
        np.testing.assert_allclose(vectors[:, position], by_hand, rtol=1e-6)
        one = to_numpy(collection.field_vectors(field, IDS[:, position]))
        np.testing.assert_array_equal(one, vectors[:, position])


@specs
def test_one_id_of_two_fields_has_two_vectors(spec):
    collection = make(spec)
    randomize(collection)
    vectors = to_numpy(collection(ids_of([[i, i, i] for i in range(40)])))
    assert len(np.unique(vectors.reshape(120, 6).round(4), axis=0)) == 120


@specs
def test_a_cell_s_gradient_is_the_sum_over_the_fields_that_read_it(spec):
    collection = make(spec)
    ids = np.array([[5, 5, 5], [999, 39, 499]])
    cotangent = np.random.default_rng(1).normal(size=(2, 3, 6)).astype("float32")
    (found,) = gradients(collection, ids, cotangent).values()
    memory = memory_of(collection)
    slope = np.zeros_like(memory)
    # The vectors are linear in the memory: the gradient of one cell by a memory of that cell.
    for row in np.flatnonzero(np.abs(found).sum(axis=1)):
        for column in range(memory.shape[1]):
            unit = np.zeros_like(memory)
            unit[row, column] = 1
            parts = [expected(spec, unit, f, ids[:, f]) for f in range(3)]
            slope[row, column] = np.sum(np.stack(parts, axis=1) * cotangent)
    np.testing.assert_allclose(found, slope, rtol=1e-5, atol=1e-6)
    assert np.count_nonzero(slope) > 20


@specs
def test_files_hold_the_fields_shares(spec, tmp_path):
    def model_of(fused):
        inputs = keras.Input((3,), dtype="int32")
        return keras.Model(inputs, make(spec, fused=fused)(inputs))

    source, target = model_of(True), model_of(False)
    randomize(source.layers[-1])
    source.save_weights(tmp_path / "model.weights.h5")
    target.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(target.predict_on_batch(IDS), source.predict_on_batch(IDS))
    store = {}
    source.layers[-1].save_own_variables(store)
    assert sorted(store) == ["city/memory", "item/memory", "user/memory"]
    assert len(store["user/memory"]) == len(memory_of(source.layers[-1])) * 250 // 385


@specs
def test_initial_vectors_have_the_variance_of_the_largest_field(spec):
    keras.utils.set_random_seed(0)
    collection = EmbeddingCollection({"large": 3000, "small": 300}, 64, threshold=0, **spec)
    for field, n in (("large", 3000), ("small", 300)):
        vectors = to_numpy(collection.field_vectors(field, np.arange(n)))
        assert vectors.var() == pytest.approx(1 / (3 * 3000), rel=0.1)


def test_fields_of_other_options_have_a_memory_of_their_own():
    collection = EmbeddingCollection(
        {"a": 400, "b": 300, "c": 200, "d": 100},
        8,
        "unified",
        overrides={
            "b": {"options": {"collisions": 8}},
            "c": {"options": {"num_chunks": 4}},
            "d": {"embedding": "full"},
        },
    )
    collection.build(None)
    shapes = sorted(tuple(w.shape) for w in collection.weights)
    assert shapes == sorted([(2 * 100 + 2 * 38, 4), (4 * 50, 2), (100, 8)])
    assert to_numpy(collection(np.array([[399, 299, 199, 99]]))).shape == (1, 4, 8)


def test_bags_of_a_pool():
    collection = make(SPECS["unified"], combiner="mean")
    bags = {name: np.array([[1, 2], [3, 3]]) for name in FIELDS}
    out = to_numpy(collection(bags))
    ones = to_numpy(collection.field_vectors("city", np.array([1, 2, 3])))
    np.testing.assert_allclose(out[0, 1], (ones[0] + ones[1]) / 2, rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(out[1, 1], ones[2], rtol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs of ops are TensorFlow's")
@specs
def test_a_large_memory_is_read_by_places(spec, every_table_is_read_by_rows):
    collection = make(spec)
    reads = ops_reading(collection, {"memory": collection.weights[0]}, (7, 3))
    assert reads["memory"] <= {"ResourceGather", "NoOp", "Identity", "VariableShape"}


# Unified.


def test_one_field_of_one_chunk_is_the_hashing_trick():
    unified = UnifiedEmbedding(500, 6, num_buckets=40, num_chunks=1, seed=5)
    hashed = HashEmbedding(500, 6, num_buckets=40, hash_function="universal", seed=5)
    for layer in (unified, hashed):
        layer.build(None)
        randomize(layer)
    ids = np.arange(500)
    np.testing.assert_array_equal(to_numpy(unified(ids)), to_numpy(hashed(ids)))


def test_two_ids_seldom_share_all_chunks():
    rows = 100
    layer = UnifiedEmbedding(2**30, 4, num_buckets=rows)
    layer.build(None)
    randomize(layer)
    ids = np.random.default_rng(0).choice(2**30, 2000, replace=False)
    vectors = to_numpy(layer(ids))
    repeated = 2000 - len(np.unique(vectors, axis=0))
    expected_pairs = 2000**2 / (2 * rows**2)  # 200
    assert expected_pairs / 1.5 < repeated < expected_pairs * 1.5
    assert len(np.unique(vectors[:, :2], axis=0)) <= rows


def test_unified_refuses_chunks_that_do_not_divide():
    with pytest.raises(ValueError, match=r"multiple of `num_chunks`. Received: output_dim=6, .*=4"):
        UnifiedEmbedding(10, 6, num_chunks=4)


# ROBE.


@pytest.mark.parametrize(("circular", "places"), [(True, [4, 5, 9, 0]), (False, [6, 7, 2, 3])])
def test_robe_places_worked_by_hand(circular, places):
    """Blocks of 2 in an array of 10, hashes (7 * 3 + 5 c + 3) mod 31: 24 and 29."""
    layer = ROBEEmbedding(50, 4, memory_size=10, block_size=2, circular=circular)
    hashed = np.array([[(7 * 3 + 5 * c + 3) % 31 for c in (0, 1)]])
    assert to_numpy(layer.places(ids_of(hashed), 10)).tolist() == [places]


def test_robe_numbers_of_a_block_are_neighbours_and_the_last_block_is_shorter():
    layer = ROBEEmbedding(10**6, 8, memory_size=1001, block_size=3, signs=False)
    layer.build(None)
    layer.memory.assign(np.arange(1001, dtype="float32")[:, None])
    found = to_numpy(layer(np.random.default_rng(0).integers(0, 10**6, 200)))
    steps = np.diff(found, axis=1) % 1001
    assert (steps[:, [0, 1, 3, 4, 6]] == 1).all()
    assert (steps[:, [2, 5]] != 1).mean() > 0.95


def test_robe_blocks_stay_inside_unless_circular_and_reach_everything():
    ids = np.arange(4000)
    for circular in (True, False):
        layer = ROBEEmbedding(4000, 4, memory_size=29, block_size=4, signs=False, circular=circular)
        layer.build(None)
        layer.memory.assign(np.arange(29, dtype="float32")[:, None])
        found = to_numpy(layer(ids))
        assert set(found.ravel()) == set(range(29))
        assert (found[:, 3] < found[:, 0]).any() == circular


def test_robe_signs_are_balanced_and_change_no_magnitude():
    layers = [ROBEEmbedding(5000, 8, memory_size=999, signs=signs) for signs in (True, False)]
    for layer in layers:
        layer.build(None)
        randomize(layer)
    signed, plain = (to_numpy(layer(np.arange(5000))) for layer in layers)
    np.testing.assert_array_equal(np.abs(signed), np.abs(plain))
    share = (signed == plain).mean(axis=0)
    assert (np.abs(share - 0.5) < 0.05).all()


def test_robe_of_blocks_of_one_hashes_each_number():
    """HashedNets: nearby numbers of a vector lie anywhere."""
    layer = ROBEEmbedding(1000, 4, memory_size=997, block_size=1, signs=False)
    layer.build(None)
    layer.memory.assign(np.arange(997, dtype="float32")[:, None])
    found = to_numpy(layer(np.arange(1000)))
    np.testing.assert_array_equal(
        found, robe(weights_by_name(layer), np.arange(1000), 1, 4, signs=False)
    )


def test_robe_sizes_and_refusals():
    size = ROBEEmbedding(1_000_000, 16, memory_size=16_000).footprint()
    assert (size.parameters, size.inference_bytes) == (16_000, 64_000)
    assert ROBEEmbedding.for_budget(1_000_000, 16, 64_003) == {"memory_size": 16_000}
    assert ROBEEmbedding(10, 4, block_size=16).block_size == 4
    with pytest.raises(ValueError, match="at least `block_size` unless `circular`"):
        ROBEEmbedding(10, 4, memory_size=3, block_size=4, circular=False)
