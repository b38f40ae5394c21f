"""The conformance test: every case through every check, on the current runtime."""

import json

import numpy as np
import pytest
from cases import CASES
from runtime import (
    compiled,
    dtype_name,
    gradients,
    ids_of,
    ops_reading,
    randomize,
    to_numpy,
    weights_by_name,
)

from tf_compemb import EmbeddingCollection, FullEmbedding
from tf_compemb._keras import BACKEND, keras, ops
from tf_compemb.storage.table import StateSpec

all_cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


def sizes(case):
    return [(n, d) for n, d in zip(case.input_dims, (8, 4, 16), strict=False)]


def built(case, n=None, **kwargs):
    layer = case.make(n, **kwargs)
    layer.build(None)
    case.prepare(layer)
    return layer


def assert_close(found, expected):
    """Equal to a few float32 roundings of the largest value."""
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6 * np.abs(expected).max())


@all_cases
@pytest.mark.parametrize("shape", [(), (0,), (1,), (5,), (2, 3), (2, 1, 4)], ids=str)
def test_shape(case, shape):
    layer = case.make()
    ids = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    out = layer(ids)
    assert tuple(out.shape) == (*shape, *layer.vector_shape)
    assert tuple(layer.compute_output_shape(shape)) == (*shape, *layer.vector_shape)
    assert layer.vector_shape[-1] == layer.output_dim


@all_cases
def test_formula_with_random_weights(case):
    for n, d in sizes(case):
        layer = built(case, n, output_dim=d)
        randomize(layer)
        ids = np.random.default_rng(1).integers(0, n, size=40)
        ids[:2] = 0, n - 1
        expected = case.formula(weights_by_name(layer), ids, n)
        assert_close(to_numpy(layer(ids)), expected)


@all_cases
def test_each_id_alone_equals_all_together(case):
    layer = built(case)
    randomize(layer)
    n = layer.input_dim
    table = to_numpy(layer(np.arange(n)))
    ids = np.random.default_rng(2).integers(0, n, size=(6, 5))
    assert_close(to_numpy(layer(ids)), table[ids])


@all_cases
def test_number_of_distinct_vectors(case):
    layer = built(case)
    randomize(layer)
    n = layer.input_dim
    table = to_numpy(layer(np.arange(n))).reshape(n, -1).round(4)
    assert len(np.unique(table, axis=0)) == case.distinct(n)


@all_cases
def test_gradient_against_finite_differences(case):
    """The runtime's gradient against central differences of the NumPy formula, in float64."""
    layer = built(case, output_dim=2 * case.multiple)
    randomize(layer, seed=3)
    n = layer.input_dim
    ids = np.array([0, 1, n - 1, 1])
    cotangent = np.random.default_rng(4).normal(size=(4, *layer.vector_shape))
    found = gradients(layer, ids, cotangent.astype("float32"))
    weights = {
        k: v.astype("float64") if k in found else v for k, v in weights_by_name(layer).items()
    }
    rng = np.random.default_rng(5)
    for name in found:
        value = weights[name]
        touched = np.flatnonzero(np.abs(found[name]).ravel() > 0)
        assert touched.size, f"no gradient reaches {name}"
        for position in rng.choice(touched, size=min(4, touched.size), replace=False):
            ends = []
            for step in (1e-6, -1e-6):
                moved = value.copy()
                moved.ravel()[position] += step
                vectors = case.formula({**weights, name: moved}, ids, n)
                ends.append(np.sum(vectors * cotangent))
            slope = (ends[0] - ends[1]) / 2e-6
            assert found[name].ravel()[position] == pytest.approx(slope, rel=2e-3, abs=2e-3)


@all_cases
def test_gradient_of_repeated_ids_is_the_sum(case):
    layer = built(case)
    randomize(layer)
    cotangent = np.ones((1, *layer.vector_shape), "float32")
    once = gradients(layer, [3], cotangent)
    thrice = gradients(layer, [3, 3, 3], np.repeat(cotangent, 3, axis=0))
    for name in once:
        assert_close(thrice[name], 3 * once[name])


@all_cases
def test_footprint_is_what_is_stored(case):
    for n, d in sizes(case):
        layer = case.make(n, output_dim=d)
        stated = layer.footprint()
        assert stated.parameters == case.parameters(n, d)
        layer.build(None)
        trained = sum(int(np.prod(w.shape)) for w in layer.trainable_weights)
        stored = sum(to_numpy(w).nbytes for w in layer.weights)
        assert trained == stated.parameters
        assert stored == stated.training_bytes == stated.weight_bytes + stated.index_bytes
        assert stated.index_bytes == case.index_bytes(n)
        assert stated.inference_bytes == case.inference_bytes(n, d)
        served = layer.for_inference()
        assert sum(to_numpy(w).nbytes for w in served.weights) == stated.inference_bytes
        assert stated.full_parameters == n * d


@all_cases
def test_for_inference_gives_the_same_vectors(case):
    layer = built(case)
    ids = np.arange(layer.input_dim)
    found, expected = to_numpy(layer.for_inference()(ids)), to_numpy(layer(ids))
    tolerance = case.served_tolerance * np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


@all_cases
def test_config_round_trip_through_json(case):
    layer = case.make(combiner="mean", mask_zero=True, name="field")
    config = json.loads(json.dumps(layer.get_config()))
    again = type(layer).from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    assert again.footprint() == layer.footprint()
    assert (again.combiner, again.mask_zero, again.name) == ("mean", True, "field")


@all_cases
def test_saved_model_file_gives_the_same_predictions(case, tmp_path):
    n = case.input_dims[0]
    model = keras.Sequential([case.make(), keras.layers.Flatten(), keras.layers.Dense(1)])
    ids = np.random.default_rng(0).integers(0, n, size=(8, 3))
    model.compile("sgd", "mse")
    model.fit(ids, np.ones((8, 1)), epochs=1, verbose=0)
    path = tmp_path / "model.keras"
    model.save(path)
    again = keras.models.load_model(path)
    np.testing.assert_array_equal(again.predict_on_batch(ids), model.predict_on_batch(ids))


@all_cases
def test_weights_file_round_trip(case, tmp_path):
    def make():
        inputs = keras.Input((3,), dtype="int32")
        return keras.Model(inputs, case.make(name="field")(inputs))

    model, other = make(), make()
    model.save_weights(tmp_path / "model.weights.h5")
    other.load_weights(tmp_path / "model.weights.h5")
    ids = np.arange(6).reshape(2, 3)
    np.testing.assert_array_equal(other.predict_on_batch(ids), model.predict_on_batch(ids))


@all_cases
def test_compiled_equals_eager(case):
    layer = built(case)
    ids = ids_of([[1, 2, 3], [4, 0, 1]])
    assert_close(to_numpy(compiled(layer)(ids)), to_numpy(layer(ids)))


@all_cases
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "float64"])
def test_dtype_policy(case, policy):
    """Tables stay float32; vectors come in the compute type."""
    if BACKEND == "jax" and policy == "float64":
        pytest.skip("JAX has no float64 unless it is enabled")
    exact = built(case)
    randomize(exact)
    layer = built(case, dtype=policy)
    layer.set_weights(exact.get_weights())
    ids = np.arange(20)
    out = layer(ids)
    assert dtype_name(out) == policy.removeprefix("mixed_")
    assert {dtype_name(w) for w in layer.trainable_weights} == {"float32"}
    expected = to_numpy(exact(ids))
    # A bfloat16 has 8 significant bits, and a path rounds at every layer.
    tolerance = 0.03 if policy == "mixed_bfloat16" else 1e-5
    np.testing.assert_allclose(
        to_numpy(ops.cast(out, "float32")), expected, atol=tolerance * np.abs(expected).max()
    )


@all_cases
def test_initial_vectors_have_the_full_table_s_variance(case):
    n = case.input_dims[-1]
    draws = np.concatenate(
        [to_numpy(case.make(n, output_dim=64)(np.arange(n))).ravel() for _ in range(12)]
    )
    variance = 1 / (3 * n)
    assert abs(draws.mean()) < 0.2 * np.sqrt(variance)
    assert draws.var() == pytest.approx(variance, rel=max(case.variance_tolerance, 0.2))


@all_cases
@pytest.mark.parametrize("wrong", [-1, "n"])
def test_an_id_out_of_range_raises(case, wrong):
    layer = built(case, name="field")
    n = layer.input_dim
    with pytest.raises(ValueError, match=rf"field: ids must be in \[0, {n}\)\. Received: (-1|{n})"):
        layer(np.array([0, n if wrong == "n" else wrong]))


@all_cases
@pytest.mark.parametrize("wrong", [-1, "n"])
def test_a_compiled_id_out_of_range_raises_or_is_nan(case, wrong):
    layer = built(case, name="field")
    call = compiled(layer)
    ids = ids_of([0, layer.input_dim if wrong == "n" else wrong])
    if BACKEND == "jax":
        out = to_numpy(call(ids))
        assert np.isfinite(out[0]).all()
        assert np.isnan(out[1]).all()
    elif BACKEND == "tensorflow":
        import tensorflow as tf

        with pytest.raises(tf.errors.InvalidArgumentError, match="field: ids must be in"):
            call(ids)
    else:
        with pytest.raises(ValueError, match="field: ids must be in"):
            call(ids)


@all_cases
def test_float_and_string_ids_are_type_errors(case):
    layer = case.make(name="field")
    with pytest.raises(TypeError, match="field: ids must be integers, not float64"):
        layer(np.array([1.0, 2.0]))
    with pytest.raises(TypeError, match="field: ids must be integers, not strings"):
        layer(np.array(["a", "b"]))


@pytest.mark.parametrize(
    ("ids", "error", "message"),
    [
        (None, TypeError, "ids must be integers, not None"),
        ([[1, None]], TypeError, "ids must be integers, not None"),
        (np.array(["a", None], object), TypeError, "ids must be integers, not None"),
        (2**70, ValueError, r"ids must be in \[0, 12\)\. Received: 1180591620717411303424"),
        ([1, -(2**64)], ValueError, r"ids must be in \[0, 12\)\. Received: -18446744073709551616"),
        (np.array([2**64 - 1], "uint64"), ValueError, "Received: 18446744073709551615|needs 64"),
        ([2**63], ValueError, "Received: 9223372036854775808|id 9223372036854775808 needs 64"),
        (np.array([1, 2], object), TypeError, r"not Python objects \(int\)\. Cast them"),
        (np.array([1, "a"], object), TypeError, r"not Python objects \(int, str\)"),
        (np.array(["a", "b"], object), TypeError, "ids must be integers, not strings"),
        ([b"a"], TypeError, "ids must be integers, not strings"),
        ([[1], [1, 2]], ValueError, "the ids are lists of different lengths. Pad them"),
        ({"a": 1}, TypeError, "ids must be a tensor, an array or a list of integers.*dict"),
        ({1, 2}, TypeError, "ids must be a tensor, an array or a list of integers.*set"),
        (True, TypeError, "ids must be integers, not bool"),
        (1.5, TypeError, "ids must be integers, not float64"),
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", ["layer", "collection"])
def test_what_wrong_ids_are(ids, error, message, kind):
    called = FullEmbedding(12, 4, name="field")
    if kind == "collection":
        called, ids = EmbeddingCollection({"a": 12}, 4, name="field"), {"a": ids}
    with pytest.raises(error, match=f"^field: .*{message}|^field: {message}"):
        called(ids)


@all_cases
def test_own_arguments_are_few(case):
    import inspect

    own = [
        p
        for p in inspect.signature(case.layer).parameters
        if p not in ("input_dim", "output_dim", "kwargs")
    ]
    assert len(own) <= 7


def test_every_registered_method_has_a_case():
    from tf_compemb.layers import get_method, method_names

    assert {get_method(name) for name in method_names()} == {case.layer for case in CASES}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs of ops are TensorFlow's")
@all_cases
@pytest.mark.parametrize("policy", ["float32", "mixed_bfloat16"])
def test_no_table_is_read_or_cast_whole(case, policy, every_table_is_read_by_rows):
    """In the traced training step a table is touched by ResourceGather only."""
    layer = built(case, dtype=policy)
    tables = {
        name: getattr(layer, name)
        for name, spec in layer.table_specs().items()
        if not isinstance(spec, StateSpec)
    }
    reads = ops_reading(layer, tables, (5,))
    assert set(reads) == set(tables)
    for name, ops_of_table in reads.items():
        assert ops_of_table <= {"ResourceGather", "NoOp", "Identity", "VariableShape"}, name


@pytest.mark.skipif(BACKEND != "tensorflow", reason="graphs of ops are TensorFlow's")
@all_cases
def test_a_small_table_is_read_whole_and_has_a_dense_gradient(case):
    layer = built(case)
    tables = {n: getattr(layer, n) for n, s in layer.table_specs().items() if hasattr(s, "width")}
    for name, ops_of_table in ops_reading(layer, tables, (5,)).items():
        assert "ReadVariableOp" in ops_of_table, name
        assert "ResourceGather" not in ops_of_table, name
