"""What is not a number stays none: dense features, weights and overflow, eagerly and in graphs."""

import os
import warnings

import numpy as np
import pytest

if os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true"):
    pytest.skip(
        "the models need tensorflow-recommenders and with it tf_keras (TF_USE_LEGACY_KERAS=1)",
        allow_module_level=True,
    )

import tensorflow as tf

from tf_compemb import optimizers
from tf_compemb._keras import keras
from tf_compemb.collection import EmbeddingCollection
from tf_compemb.export import saved_model, tflite
from tf_compemb.models import DCN, DLRM
from tf_compemb.models.relu import relu
from tf_compemb.native_session import NativeError, NativeSession
from tf_compemb.training.distillation import Distillation
from tf_compemb.training.evaluation import Evaluator

CARDINALITIES = {"a": 7, "b": 50}
ROWS, WRONG_ROW, WRONG_COLUMN = 5, 2, 3
WIDTHS = {DLRM: {"bottom_units": (8,), "top_units": (8,)}, DCN: {"deep_units": (8, 4)}}
KINDS = [(DLRM, {}), (DCN, {}), (DCN, {"cross": "matrix"})]
NOT_FINITE = [np.nan, np.inf, -np.inf]


def made(kind, **options):
    keras.utils.set_random_seed(1)
    embeddings = EmbeddingCollection(CARDINALITIES, 4, "full")
    model = kind(embeddings, dense_features=4, **WIDTHS[kind], **options)
    model.build_on_one_row()
    return model


def features(value=0.5, rows=ROWS):
    rng = np.random.default_rng(0)
    dense = rng.normal(size=(rows, 4)).astype("float32")
    dense[WRONG_ROW:, WRONG_COLUMN] = value
    dense[WRONG_ROW + 1 :, WRONG_COLUMN] = 0.25
    ids = np.stack([rng.integers(0, n, rows) for n in CARDINALITIES.values()], axis=1)
    return {"dense": dense, "categorical": ids}


def tensors(value=0.5):
    return {name: tf.constant(array) for name, array in features(value).items()}


WAYS = {
    "eager": lambda model, x: model(x),
    "graph": lambda model, x: tf.function(lambda given: model(given), autograph=False)(x),
    "predict": lambda model, x: model.predict_on_batch(x),
}


def by_xla(model, x):
    return tf.function(lambda given: model(given), jit_compile=True, autograph=False)(x)


@pytest.mark.parametrize(
    ("kind", "options", "way"),
    [*((*kind, way) for kind in KINDS for way in WAYS.values()), (DLRM, {}, by_xla)],
)
def test_a_dense_feature_that_is_not_finite_gives_nan_in_its_row_only(kind, options, way):
    model = made(kind, **options)
    right = np.asarray(way(model, tensors()))
    assert np.isfinite(right).all()
    for value in NOT_FINITE:
        found = np.asarray(way(model, tensors(value)))
        assert np.isnan(found[WRONG_ROW]).all()
        np.testing.assert_array_equal(
            np.delete(found, WRONG_ROW, axis=0), np.delete(right, WRONG_ROW, axis=0)
        )


def test_one_unit_that_would_make_zero_of_minus_infinity():
    """Not even eagerly a network's own arithmetic gives NaN here."""
    model = made(DLRM)
    for weight in model.bottom.weights:
        weight.assign(tf.ones_like(weight))
    for way in WAYS.values():
        assert np.isnan(np.asarray(way(model, tensors(-np.inf)))[WRONG_ROW]).all()


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_what_the_type_of_the_computations_cannot_hold(policy):
    keras.mixed_precision.set_global_policy(policy)
    try:
        model = made(DLRM)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    too_large = {"mixed_float16": 1e5, "mixed_bfloat16": 3.4e38}[policy]
    for way in ("eager", "graph"):
        found = np.asarray(WAYS[way](model, tensors(too_large)))
        assert np.isnan(found).ravel().tolist() == [row == WRONG_ROW for row in range(ROWS)]


@pytest.mark.parametrize(("kind", "part"), [(DLRM, "bottom"), (DLRM, "top"), (DCN, "deep")])
def test_a_weight_that_is_nan_is_seen_in_a_graph(kind, part):
    """As after a step that diverged; a product of matrices with its ReLU made 0 of it."""
    model = made(kind)
    kernel = getattr(model, part).weights[0]
    kernel.assign(tf.fill(kernel.shape, np.nan))
    for way in WAYS.values():
        assert np.isnan(np.asarray(way(model, tensors()))).all()


def test_an_overflow_within_the_network_is_seen_in_a_graph():
    model = made(DLRM)
    first, second = model.bottom.weights[0], model.bottom.weights[2]
    first.assign(tf.fill(first.shape, 2.0))  # Every hidden unit becomes infinite,
    second.assign(tf.tile([[1.0], [-1.0]], [4, 4]))  # and infinities cancel.
    large = {**tensors(), "dense": tf.fill([ROWS, 4], 3e38)}
    for way in WAYS.values():
        assert np.isnan(np.asarray(way(model, large))).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_relu_and_its_gradient_are_tensorflows_but_for_nan(dtype):
    x = tf.cast([[-2.0, -0.0, 0.0, 0.5, np.inf, -np.inf]], dtype)

    def both(activation):
        with tf.GradientTape() as tape:
            tape.watch(x)
            result = activation(x)
        return result, tape.gradient(result, x)

    for one in (lambda f: f, lambda f: tf.function(f, autograph=False)):
        for found, expected in zip(both(one(relu)), both(tf.nn.relu), strict=True):
            np.testing.assert_array_equal(found, expected)
        assert np.isnan(one(relu)(tf.cast([np.nan], dtype))).all()


def test_fit_and_evaluate_say_nan():
    data = tf.data.Dataset.from_tensors((features(np.nan), np.ones((ROWS, 1), "float32")))
    model = made(DLRM)
    model.compile(optimizers.get("adagrad", 0.1))
    assert np.isnan(model.evaluate(data, verbose=0, return_dict=True)["log_loss"])
    assert np.isnan(model.fit(data, verbose=0).history["log_loss"][0])


def test_a_teacher_s_row_is_nan_and_others_are_not():
    teacher, logits = made(DLRM), tf.zeros([ROWS, 1])
    distillation = Distillation(teacher, weight=0.5)
    found = tf.function(distillation.row_losses, autograph=False)(
        tf.ones([ROWS, 1]), logits, tensors(np.inf)
    )
    assert np.isnan(found).ravel().tolist() == [row == WRONG_ROW for row in range(ROWS)]


def test_no_quality_is_measured_of_logits_that_are_nan():
    labels = tf.constant([[0.0], [1.0], [0.0], [1.0], [0.0]])
    found = Evaluator(made(DLRM))([(tensors(np.nan), labels)])
    assert (np.isnan(found["loss"]), found["auc"], np.isnan(found["accuracy"])) == (
        True,
        None,
        True,
    )
    found = Evaluator(made(DLRM))([(tensors(), labels)])
    assert all(np.isfinite(value) for value in found.values())


# --- Exports, as TensorFlow Serving runs them ----------------------------------------------------


@pytest.fixture(scope="module", params=[DLRM, DCN], ids=lambda kind: kind.__name__)
def exported(request, tmp_path_factory):
    model = made(request.param)
    with NativeSession(saved_model(model, tmp_path_factory.mktemp("m") / "clicks")) as session:
        yield model, session


@pytest.mark.parametrize("outputs", [None, ["logit"], ["click_probability"]], ids=str)
@pytest.mark.parametrize("value", NOT_FINITE)
def test_the_served_graph_refuses_and_names_row_and_column(exported, value, outputs):
    _, session = exported
    said = "INVALID_ARGUMENT: assertion failed: .dense must be finite numbers of float32; row 2, "
    with pytest.raises(NativeError, match=rf"{said}column 3 \(from 0\) is {value}]"):
        session.run("serving_default", features(value), outputs)
    several = features(value)
    several["dense"][4] = np.nan
    with pytest.raises(NativeError, match=f"row 2, column 3 .* is {value}]"):
        session.run("serving_default", several, outputs)


@pytest.mark.parametrize("rows", [0, 1, ROWS, 300])
def test_the_served_graph_answers_what_is_finite(exported, rows):
    """-1, -2 and the largest float are features like others; the graph of a call gives them."""
    model, session = exported
    for value in (-1.0, -2.0, 1e-45, 1e20):
        given = {name: array[:rows] for name, array in features(value, 300).items()}
        found = session.run("serving_default", given)
        call = tf.function(lambda x: model(x), autograph=False)
        expected = call({name: tf.constant(array) for name, array in given.items()})
        np.testing.assert_allclose(found["logit"], expected, rtol=1e-5, atol=1e-6)


def test_the_served_graph_of_a_half_precision_model_refuses_what_overflows(tmp_path):
    keras.mixed_precision.set_global_policy("mixed_float16")
    try:
        path = saved_model(made(DLRM), tmp_path / "half")
    finally:
        keras.mixed_precision.set_global_policy("float32")
    with NativeSession(path) as session:
        with pytest.raises(NativeError, match=r"numbers of float16; row 2, .* is 100000]"):
            session.run("serving_default", features(1e5))
        assert np.isfinite(session.run("serving_default", features(1e4))["logit"]).all()


def test_the_lite_model_gives_nan(tmp_path, caplog):
    path = tflite(made(DLRM), tmp_path / "lite")
    assert "custom gradient" not in caplog.text
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # The interpreter moves to another package.
        runner = tf.lite.Interpreter(str(path / "model.tflite")).get_signature_runner()
    kind = runner.get_input_details()["categorical"]["dtype"]
    for value in [*NOT_FINITE, 0.5]:
        given = features(value)
        found = runner(dense=given["dense"], categorical=given["categorical"].astype(kind))
        is_wrong = [row == WRONG_ROW and value != 0.5 for row in range(ROWS)]
        for name in ("logit", "click_probability"):
            assert np.isnan(found[name]).ravel().tolist() == is_wrong
