"""EmbeddingCollection: thresholds, overrides, fusion, bags, sizes, errors."""

import json

import numpy as np
import pytest
from runtime import (
    compiled,
    gradients,
    ids_of,
    ops_reading,
    randomize,
    saved_graphs,
    to_numpy,
    weights_by_name,
)

from tf_compemb import EmbeddingCollection
from tf_compemb._keras import BACKEND, LEGACY, keras
from tf_compemb.storage import small_table

CARDINALITIES = {"user": 1000, "city": 40, "day": 7, "item": 500}
IDS = np.array([[999, 0, 6, 12], [0, 39, 0, 499], [17, 17, 3, 12]])

SPECS = {
    "full": {"embedding": "full"},
    "hash": {"embedding": "hash", "options": {"collisions": 5}},
    "universal": {"embedding": "hash", "options": {"hash_function": "universal"}},
    "mult": {"embedding": "qr"},
    "concat": {"embedding": "qr", "options": {"operation": "concat", "collisions": 3}},
    "feature": {"embedding": "qr", "options": {"operation": "feature"}},
    "three": {"embedding": "compositional", "options": {"partitions": 3}, "threshold": 8},
    "crt": {
        "embedding": "compositional",
        "options": {"partitions": 2, "family": "chinese_remainder"},
    },
    "path": {"embedding": "path", "options": {"hidden_units": [4]}, "threshold": 50},
    "mixed": {"embedding": "qr", "threshold": 10, "overrides": {"item": {"embedding": "full"}}},
}
specs = pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)


def make(spec, **kwargs):
    collection = EmbeddingCollection(CARDINALITIES, 6, **spec, **kwargs)
    collection.build(None)
    return collection


def separate_layers(collection):
    """One layer a field, with the weights that the collection would give it."""
    return [type(f).from_config(f.get_config()) for f in collection._fields.layers]


def share_weights(collection, layers):
    """Copies the layers' tables into the collection's, fused or not."""
    for layer in layers:
        layer.build(None)
        randomize(layer, seed=layer.input_dim)
    names = list(collection.cardinalities)
    collection.load_own_variables(
        {
            f"{name}/{key}": values
            for name, layer in zip(names, layers, strict=True)
            for key, values in weights_by_name(layer).items()
        }
    )


@specs
@pytest.mark.parametrize("fused", [True, False])
def test_vectors_are_those_of_one_layer_a_field(spec, fused):
    collection = make(spec, fused=fused)
    layers = separate_layers(collection)
    share_weights(collection, layers)
    parts = [to_numpy(layer(IDS[:, i])).reshape(3, -1, 6) for i, layer in enumerate(layers)]
    expected = np.concatenate(parts, axis=1)
    assert expected.shape == (3, collection.num_vectors, 6)
    assert len(collection.vector_names) == collection.num_vectors
    np.testing.assert_allclose(to_numpy(collection(IDS)), expected, rtol=2e-5, atol=1e-5)
    np.testing.assert_allclose(
        to_numpy(compiled(collection)(ids_of(IDS))), expected, rtol=2e-5, atol=1e-5
    )
    by_name = {name: IDS[:, i] for i, name in enumerate(CARDINALITIES)}
    np.testing.assert_allclose(to_numpy(collection(by_name)), expected, rtol=2e-5, atol=1e-5)
    for i, name in enumerate(CARDINALITIES):
        one = to_numpy(collection.field_vectors(name, IDS[:, i])).reshape(3, -1, 6)
        np.testing.assert_allclose(one, parts[i], rtol=2e-5, atol=1e-5)


@specs
def test_footprint_is_what_is_stored(spec):
    for fused in (True, False):
        collection = make(spec, fused=fused)
        trained = sum(int(np.prod(w.shape)) for w in collection.trainable_weights)
        assert trained == collection.footprint().parameters
        stored = sum(to_numpy(w).nbytes for w in collection.weights)
        assert stored == collection.footprint().training_bytes


@specs
def test_config_round_trip_through_json(spec):
    collection = make(spec)
    config = json.loads(json.dumps(collection.get_config()))
    again = EmbeddingCollection.from_config(config)
    assert again.summary() == collection.summary()
    assert json.loads(json.dumps(again.get_config())) == config


@specs
def test_file_round_trip(spec, tmp_path):
    inputs = keras.Input((4,), dtype="int32")
    outputs = keras.layers.Dense(1)(keras.layers.Flatten()(make(spec)(inputs)))
    model = keras.Model(inputs, outputs)
    model.compile("adagrad", "mse")
    model.fit(IDS, np.ones((3, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict_on_batch(IDS), model.predict_on_batch(IDS))


@specs
def test_fused_and_separate_fields_have_one_file_format(spec, tmp_path):
    models = [
        keras.Sequential([keras.Input((4,), dtype="int32"), make(spec, fused=fused)])
        for fused in (True, False)
    ]
    for source, target in (models, models[::-1]):
        randomize(source, seed=len(source.weights))
        source.save_weights(tmp_path / "all.weights.h5")
        target.load_weights(tmp_path / "all.weights.h5")
        np.testing.assert_array_equal(target.predict_on_batch(IDS), source.predict_on_batch(IDS))


def test_a_file_of_other_fields_is_refused():
    collection = make(SPECS["mult"], name="fields")
    first = next(iter(CARDINALITIES))
    with pytest.raises(ValueError, match=f"fields: the file holds no '{first}/remainder'"):
        collection.load_own_variables({})
    with pytest.raises(ValueError, match=r"has shape \(4, 6\) here and \(3, 6\) in the file"):
        collection.load_own_variables({f"{first}/remainder": np.zeros((3, 6))})


def test_fields_of_one_table_join_those_of_several():
    """They read a neutral row of the small table, which is not stored."""
    sizes = {"a": 100, "b": 5, "c": 200}
    for options in ({"operation": "mult"}, {"operation": "add"}, {"modulus": "large"}):
        small = EmbeddingCollection(sizes, 4, "qr", options=options)
        small.build(None)
        assert [tuple(w.shape) for w in small.weights] == (
            [(25 + 5 + 50, 4), (8, 4)] if "modulus" in options else [(8, 4), (25 + 5 + 50, 4)]
        )
    apart = EmbeddingCollection(sizes, 4, "qr", threshold=5, options={"operation": "concat"})
    apart.build(None)
    assert len(apart.weights) == 3


def test_fields_of_one_table_stay_apart_from_large_further_tables(monkeypatch):
    monkeypatch.setattr(small_table, "SMALL_TABLE", 7)
    collection = EmbeddingCollection({"a": 100, "b": 5, "c": 200}, 4, "qr")
    collection.build(None)
    assert len(collection.weights) == 3


def test_fused_fields_share_one_variable_a_partition():
    assert len(make(SPECS["full"]).weights) == 1
    assert len(make(SPECS["mult"]).weights) == 2  # even "day" (7 rows) gains: 4 + 2 = 6 rows
    assert len(make(SPECS["mult"], fused=False).weights) == 8


def test_fused_tables_keep_each_field_s_initial_variance():
    keras.utils.set_random_seed(0)
    collection = EmbeddingCollection({"large": 10_000, "small": 100}, 64, "full")
    large = to_numpy(collection.field_vectors("large", np.arange(10_000)))
    small = to_numpy(collection.field_vectors("small", np.arange(100)))
    assert large.var() == pytest.approx(1 / 30_000, rel=0.05)
    assert small.var() == pytest.approx(1 / 300, rel=0.1)
    assert np.abs(large).max() <= 0.01


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs of ops are TensorFlow's")
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_a_large_fused_table_is_read_by_rows_beside_a_small_one(policy, monkeypatch):
    monkeypatch.setattr(small_table, "SMALL_TABLE", 8)
    collection = EmbeddingCollection({"a": 100, "b": 5, "c": 200}, 4, "qr", dtype=policy)
    collection.build(None)
    small, large = collection.weights
    reads = ops_reading(collection, {"small": small, "large": large}, (7, 3))
    assert reads["large"] <= {"ResourceGather", "NoOp", "Identity", "VariableShape"}
    assert "ResourceGather" not in reads["small"]


def test_gradients_of_fused_tables_reach_the_rows_read_and_no_others():
    collection = make(SPECS["full"])
    found = gradients(collection, IDS, np.ones((3, 4, 6), "float32"))
    (table,) = found.values()
    counts = np.zeros(1547)
    for i, offset in enumerate([0, 1000, 1040, 1047]):
        np.add.at(counts, IDS[:, i] + offset, 1)
    np.testing.assert_allclose(table, np.repeat(counts[:, None], 6, axis=1))


@pytest.mark.parametrize(
    ("threshold", "methods"),
    [
        (None, ["qr", "qr", "qr", "qr", "full"]),
        (0, ["qr", "qr", "qr", "qr", "qr"]),
        (7, ["qr", "qr", "full", "qr", "full"]),
        (10**6, ["full"] * 5),
    ],
)
def test_threshold(threshold, methods):
    collection = EmbeddingCollection({**CARDINALITIES, "tiny": 6}, 6, "qr", threshold=threshold)
    assert [m for m, _ in collection.field_footprints().values()] == methods


def test_summary():
    collection = EmbeddingCollection({"user": 1000, "day": 5}, 4, "hash")
    assert collection.summary().splitlines() == [
        "field  rows  method  parameters  bytes  ratio",
        "user   1000  hash          1000   4000    4.0",
        "day       5  hash             8     32    2.5",
        "total  1005                1008   4032    4.0",
    ]


def test_the_kaggle_tables_have_the_paper_s_sizes():
    kaggle = [
        *(1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194),
        *(27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572),
    ]
    full = EmbeddingCollection(kaggle, 16, "full").footprint()
    assert full.parameters == sum(kaggle) * 16 == 540_201_232
    sizes = {}
    for hidden in (16, 32, 64, 128):
        options = {"collisions": 4, "hidden_units": [hidden]}
        collection = EmbeddingCollection(kaggle, 16, "path", threshold=0, options=options)
        sizes[hidden] = collection.footprint().parameters
        quotients = sum(-(-n // 4) for n in kaggle) * 16
        assert sizes[hidden] == quotients + 26 * 4 * (33 * hidden + 16)
    # Differences between the rows of the paper's table 1.
    assert sizes[32] - sizes[16] == 135_519_322 - 135_464_410
    assert sizes[64] - sizes[32] == 135_629_146 - 135_519_322
    assert sizes[128] - sizes[64] == 135_848_794 - 135_629_146


@pytest.mark.parametrize("fused", [True, False])
def test_an_id_out_of_range_raises(fused):
    collection = make(SPECS["mult"], fused=fused, name="fields")
    wrong = IDS.copy()
    wrong[1, 1] = 40  # in range for "user", not for "city"
    with pytest.raises(ValueError, match=r"fields: .*each field.*Received: 40"):
        collection(wrong)
    call = compiled(collection)
    if BACKEND == "jax":
        out = to_numpy(call(ids_of(wrong)))
        assert np.isnan(out[1, 1]).all()
        assert np.isfinite(np.delete(out.reshape(12, 6), 5, axis=0)).all()
    else:
        with pytest.raises(Exception, match="fields: the ids of each field"):
            call(ids_of(wrong))
    with pytest.raises(ValueError, match=r"ids of city must be in \[0, 40\)"):
        collection.field_vectors("city", np.array([40]))


@pytest.mark.skipif(BACKEND != "tensorflow", reason="ragged tensors are TensorFlow's")
@pytest.mark.parametrize("fused", [True, False])
def test_bags_beside_single_ids(fused):
    import tensorflow as tf

    collection = EmbeddingCollection(
        CARDINALITIES, 6, "qr", combiner="mean", mask_zero=True, fused=fused
    )
    inputs = {
        "user": tf.constant([5, 6]),
        "city": tf.ragged.constant([[1, 2, 2], []], dtype="int64"),
        "day": tf.constant([[3, 0], [1, 2]]),
        "item": tf.constant([1, 2]),
    }
    out = to_numpy(collection(inputs))

    def vector(name, i):
        return to_numpy(collection.field_vectors(name, np.array([i])))[0]

    np.testing.assert_allclose(out[0, 0], vector("user", 5), rtol=1e-5)
    city = (vector("city", 1) + 2 * vector("city", 2)) / 3
    np.testing.assert_allclose(out[0, 1], city, rtol=1e-5)
    assert (out[1, 1] == 0).all()
    np.testing.assert_allclose(out[0, 2], vector("day", 3), rtol=1e-5)
    np.testing.assert_allclose(out[1, 2], (vector("day", 1) + vector("day", 2)) / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"embedding": "nope"}, "Unknown embedding method 'nope'. Known methods: "),
        ({"overrides": {"town": {}}}, "names the field 'town', which does not exist"),
        ({"overrides": {"city": {"rank": 3}}}, r"unknown keys \['rank'\]"),
        ({"embedding": "qr", "options": {"operation": "max"}}, "Field 'user', method 'qr'"),
        ({"embedding": "qr", "options": {"rank": 3}}, "Field 'user', method 'qr'.*rank"),
        ({"combiner": "max"}, "combiner='max'"),
    ],
)
def test_wrong_specifications(kwargs, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingCollection(CARDINALITIES, 6, **kwargs)


@pytest.mark.parametrize(
    "name", ["", ".", "/", "a/b", "a\0b", "\ud800", 3, None, b"a", 2.5, ("a",)], ids=repr
)
def test_names_of_fields_that_files_would_lose(name):
    with pytest.raises(ValueError, match=r"Names of fields must .*Received: "):
        EmbeddingCollection({"city": 40, name: 1000}, 4, "qr")


NAMES = [
    "a b",
    "Straße",
    " ",
    "..",
    ".a",
    "a:0",
    "_a",
    "-",
    "{a}",
    "a_b_0",
    "A",
    "a",
    "\n",
    "fused_0",
]


@pytest.mark.parametrize("fused", [True, False])
def test_all_other_names_survive_in_files(fused, tmp_path):
    collection = EmbeddingCollection(
        {name: 40 + i for i, name in enumerate(NAMES)}, 4, "qr", threshold=0, fused=fused
    )
    inputs = keras.Input((len(NAMES),), dtype="int32")
    model = keras.Model(inputs, keras.layers.Flatten()(collection(inputs)))
    randomize(model)
    ids = np.arange(2 * len(NAMES)).reshape(2, -1)
    expected = to_numpy(model.predict_on_batch(ids))
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(again.predict_on_batch(ids), expected)
    model.save_weights(tmp_path / "model.weights.h5")
    randomize(model, seed=1)
    model.load_weights(tmp_path / "model.weights.h5")
    np.testing.assert_array_equal(model.predict_on_batch(ids), expected)
    if LEGACY:  # In that format no two weights of a layer may have one name.
        with pytest.warns(UserWarning, match="HDF5 file"):
            model.save(tmp_path / "model.h5")
        again = keras.models.load_model(tmp_path / "model.h5")
        np.testing.assert_array_equal(again.predict_on_batch(ids), expected)
    if BACKEND == "tensorflow":
        assert saved_graphs(model, tmp_path / "saved_model")


@pytest.mark.skipif(not LEGACY, reason="variables of Keras 3 have paths")
def test_names_of_variables_are_unique_in_tf_keras():
    """Also of groups of one method with different options."""
    overrides = {"b": {"embedding": "qr", "options": {"collisions": 4, "operation": "add"}}}
    for fused in (True, False):
        collection = EmbeddingCollection(
            dict.fromkeys("abcdef", 60),
            4,
            "qr",
            overrides={**overrides, "c": overrides["b"], "d": {"embedding": "path"}},
            fused=fused,
        )
        collection.build()
        names = [variable.name for variable in collection.weights]
        assert len(set(names)) == len(names) > 3


def test_wrong_inputs():
    collection = make(SPECS["full"], name="fields")
    with pytest.raises(ValueError, match=r"fields: expected ids of shape \(batch, 4\)"):
        collection(IDS[:, :3])
    with pytest.raises(ValueError, match=r"fields: ids of the fields \['item'\] are missing"):
        collection(dict.fromkeys(("user", "city", "day"), IDS[:, 0]))
    with pytest.raises(TypeError, match="fields: ids must be integers, not float64"):
        collection(IDS.astype(float))
    for lists in ([[1, 2, 3, 4]], [[1, 2]] * 4, (1, 2, 3, 4)):
        with pytest.raises(TypeError, match="fields: lists of ids could be rows or fields"):
            collection(lists)
    with pytest.raises(ValueError, match="at least one field"):
        EmbeddingCollection({}, 4)
    with pytest.raises(ValueError, match=r"`cardinalities\['a'\]` must be a positive integer"):
        EmbeddingCollection({"a": 0}, 4)
