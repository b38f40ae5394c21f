"""Methods that treat frequent ids apart: which ids those are, how the map is kept, reductions."""

import json

import numpy as np
import pytest
from runtime import ids_of, randomize, to_numpy, weights_by_name

from tf_compemb import EmbeddingCollection, FrequencyThresholdEmbedding, FullEmbedding
from tf_compemb._keras import LEGACY, keras
from tf_compemb.layers.hashing._frequent_ids import most_frequent

COUNTS = np.array([5, 0, 9, 5, 1, 5, 2, 7])


def built(cls, *args, **kwargs):
    layer = cls(*args, **kwargs)
    layer.build(None)
    randomize(layer)
    return layer


def test_the_most_frequent_ids_and_the_lower_of_equals():
    assert most_frequent(COUNTS, 4, 8).tolist() == [0, 2, 3, 7]
    assert most_frequent(COUNTS, 0, 8).tolist() == []
    assert most_frequent(COUNTS, 8, 8).tolist() == list(range(8))
    assert most_frequent(np.array([2**53, 2**53 + 2]), 1, 2).tolist() == [1]


@pytest.mark.parametrize("wrong", [[1, 2, 3], np.ones((8, 1)), ["a"] * 8])
def test_frequencies_of_another_shape_are_refused(wrong):
    with pytest.raises(ValueError, match="must hold one number for each of the 8 ids"):
        FrequencyThresholdEmbedding(8, 4, num_frequent=2, frequencies=wrong)


def test_num_frequent_out_of_range_is_refused():
    for wrong, wanted in {-1: "0 or a positive integer", 9: "from 0 to input_dim=8"}.items():
        message = f"`num_frequent` must be {wanted}. Received: num_frequent={wrong}"
        with pytest.raises(ValueError, match=message):
            FrequencyThresholdEmbedding(8, 4, num_frequent=wrong)


def test_worked_by_hand():
    layer = built(FrequencyThresholdEmbedding, 8, 2, num_frequent=3, frequencies=COUNTS)
    weights = weights_by_name(layer)
    assert weights["frequent_ids"].tolist() == [0, 2, 7]
    rows = [0, 3, 1, 3, 3, 3, 3, 2]
    np.testing.assert_array_equal(to_numpy(layer(np.arange(8))), weights["embeddings"][rows])


def test_every_id_frequent_is_the_full_table_and_none_is_one_row():
    full = built(FullEmbedding, 8, 4)
    all_frequent = built(FrequencyThresholdEmbedding, 8, 4, num_frequent=8, frequencies=COUNTS)
    assert all_frequent.footprint() == full.footprint()
    np.testing.assert_array_equal(
        to_numpy(all_frequent(np.arange(8))), to_numpy(full(np.arange(8)))
    )
    none = built(FrequencyThresholdEmbedding, 8, 4, collisions=8)
    assert (none.num_frequent, none.footprint().inference_bytes) == (0, 16)
    assert len(np.unique(to_numpy(none(np.arange(8))), axis=0)) == 1


def test_without_frequencies_low_ids_are_the_frequent_ones():
    layer = built(FrequencyThresholdEmbedding, 8, 4, num_frequent=2)
    assert weights_by_name(layer)["frequent_ids"].tolist() == [0, 1]


def test_the_map_is_saved_with_the_weights_and_not_in_the_configuration(tmp_path):
    layer = FrequencyThresholdEmbedding(8, 4, num_frequent=3, frequencies=COUNTS, name="field")
    config = json.dumps(layer.get_config())
    assert "frequencies" not in config
    inputs = keras.Input((2,), dtype="int32")
    model = keras.Model(inputs, layer(inputs))
    randomize(layer)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    assert weights_by_name(again.get_layer("field"))["frequent_ids"].tolist() == [0, 2, 7]
    ids = np.arange(8).reshape(4, 2)
    np.testing.assert_array_equal(again.predict_on_batch(ids), model.predict_on_batch(ids))


def test_ids_above_the_float_and_the_32_bit_range_are_exact():
    n = 2**24 + 10
    layer = FrequencyThresholdEmbedding(n, 2, num_frequent=2**24 + 2)
    assert layer.footprint().index_bytes == 4 * (2**24 + 2)
    small = built(FrequencyThresholdEmbedding, n, 2, num_frequent=3)
    small.frequent_ids.assign(np.array([2**24, 2**24 + 1, 2**24 + 3], dtype="int32"))
    ids = np.array([2**24 - 1, 2**24, 2**24 + 1, 2**24 + 2, 2**24 + 3])
    table = weights_by_name(small)["embeddings"]
    np.testing.assert_array_equal(to_numpy(small(ids)), table[[3, 0, 1, 3, 2]])
    huge = FrequencyThresholdEmbedding(2**31 - 1, 2, num_frequent=10)
    assert huge.footprint().index_bytes == 40


def test_from_table_keeps_frequent_rows_and_averages_the_others():
    table = np.arange(16, dtype="float32").reshape(8, 2)
    layer = FrequencyThresholdEmbedding.from_table(table, num_frequent=3, frequencies=COUNTS)
    found = to_numpy(layer(np.arange(8)))
    np.testing.assert_array_equal(found[[0, 2, 7]], table[[0, 2, 7]])
    np.testing.assert_allclose(found[1], table[[1, 3, 4, 5, 6]].mean(axis=0))
    whole = FrequencyThresholdEmbedding.from_table(table, collisions=1)
    np.testing.assert_array_equal(to_numpy(whole(np.arange(8))), table)


def test_a_collection_hands_each_field_its_frequencies():
    counts = {"a": COUNTS, "b": COUNTS[::-1]}
    asked = []

    def frequencies(field):
        asked.append(field)
        return counts[field]

    collection = EmbeddingCollection(
        {"a": 8, "b": 8, "c": 8},
        4,
        "frequency_threshold",
        options={"num_frequent": 3},
        overrides={"c": {"embedding": "full"}},
        frequencies=frequencies,
    )
    collection.build(None)
    assert asked == ["a", "b"]
    maps = [to_numpy(w).tolist() for w in collection.weights if "frequent_ids" in w.name]
    assert maps == [[0, 2, 7], [0, 2, 5]]
    vectors = to_numpy(collection(ids_of([[1, 1, 1], [3, 3, 3]])))
    np.testing.assert_array_equal(vectors[0, 0], vectors[1, 0])
    assert (vectors[0, 2] != vectors[1, 2]).all()
    assert "frequencies" not in collection.get_config()


@pytest.mark.skipif(not LEGACY, reason="the training program needs tf_keras")
def test_the_training_program_hands_on_the_frequencies_of_its_data():
    from tf_compemb.training.build import build_collection
    from tf_compemb.training.options import TrainingOptions

    class Data:
        @staticmethod
        def frequencies(field):
            return {"C1": COUNTS, "C2": COUNTS[::-1]}[field]

    options = TrainingOptions(embedding=("double_hash",), option={"num_frequent": 3})
    for data, expected in ((Data, [[0, 2, 7], [0, 2, 5]]), (None, [[0, 1, 2], [0, 1, 2]])):
        collection = build_collection(options.replace(threshold=0), [8, 8], data)
        collection.build(None)
        maps = [to_numpy(w).tolist() for w in collection.weights if "frequent_ids" in w.name]
        assert maps == expected
