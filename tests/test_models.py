"""DLRM and DCN against their formulas, written in NumPy on the models' own weights."""

import inspect
import json
import os

import numpy as np
import pytest

if os.environ.get("TF_USE_LEGACY_KERAS") not in ("1", "true"):
    pytest.skip(
        "the models need tensorflow-recommenders and with it tf_keras (TF_USE_LEGACY_KERAS=1)",
        allow_module_level=True,
    )

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tf_compemb._keras import keras
from tf_compemb.collection import EmbeddingCollection
from tf_compemb.models import DCN, DLRM, DotInteraction, VectorCross

CARDINALITIES = {"a": 7, "b": 50, "c": 30}
DENSE = 5


def collection(embedding="full", output_dim=4, **options):
    return EmbeddingCollection(
        CARDINALITIES, output_dim=output_dim, embedding=embedding, options=options
    )


def small(kind, embeddings=None, **arguments):
    embeddings = collection() if embeddings is None else embeddings
    if kind is DLRM:
        arguments = {"bottom_units": (8, 6), "top_units": (9, 7), **arguments}
    else:
        arguments = {"cross_layers": 2, "deep_units": (8, 6), **arguments}
    model = kind(embeddings, dense_features=DENSE, **arguments)
    model.build_on_one_row()
    return model


def batch(rows, seed=0):
    rng = np.random.default_rng(seed)
    ids = np.stack([rng.integers(0, n, rows) for n in CARDINALITIES.values()], axis=1)
    features = {"dense": rng.normal(size=(rows, DENSE)).astype("float32"), "categorical": ids}
    return features, rng.integers(0, 2, (rows, 1)).astype("float32")


def randomize(model, seed=1):
    rng = np.random.default_rng(seed)
    for weight in model.trainable_weights:
        weight.assign(rng.normal(size=weight.shape, scale=0.5))


def layer_weights(model, prefix):
    """Kernel and bias of each dense layer below a part of the model, in order."""
    found = [w.numpy().astype("float64") for w in getattr(model, prefix).weights]
    return list(zip(found[::2], found[1::2], strict=True))


def relu_stack(x, layers):
    for kernel, bias in layers:
        x = np.maximum(x @ kernel + bias, 0)
    return x


def trained(model):
    return sum(int(np.prod(w.shape)) for w in model.trainable_weights)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (DLRM, {}),
        (DLRM, {"bottom_units": (3,), "top_units": (2, 5, 3)}),
        (DCN, {}),
        (DCN, {"cross_layers": 3, "deep_units": (5,)}),
        (DCN, {"cross": "matrix"}),
        (DCN, {"cross": "matrix", "projection_dim": 2}),
    ],
)
def test_network_parameters_are_those_of_the_built_model(kind, arguments):
    defaults = {"bottom_units": (8, 6), "top_units": (9, 7)}
    if kind is DCN:
        defaults = {"cross_layers": 2, "deep_units": (8, 6)}
    model = small(kind, **arguments)
    network = kind.network_parameters(3, 4, dense_features=DENSE, **{**defaults, **arguments})
    assert trained(model) == network + (7 + 50 + 30) * 4


def test_paper_sizes_by_hand():
    # bottom 13-512-256-64-16, top (27 * 26 / 2 + 16 = 367)-512-256-1, each layer with biases
    bottom = 14 * 512 + 513 * 256 + 257 * 64 + 65 * 16
    assert DLRM.network_parameters(26, 16) == bottom + 368 * 512 + 513 * 256 + 257 == 475_985
    # n = 13 + 26 * 16 = 429; six pairs of vectors; deep 429-512-256-64; one unit over 429 + 64
    deep = 430 * 512 + 513 * 256 + 257 * 64
    assert DCN.network_parameters(26, 16) == 6 * 2 * 429 + deep + 494 == 373_578
    assert DCN.network_parameters(26, 16, cross="matrix") == 373_578 + 6 * (429 * 429 - 429)


def test_the_papers_table_is_met_exactly_by_the_reading_in_the_docstrings():
    base = 135_050_464 + 3 * 16
    raw_dense_into_top = DLRM.network_parameters(26, 16) - (16 - 13) * 512
    assert base + raw_dense_into_top == 135_524_961
    assert base + DCN.network_parameters(26, 16, deep_units=(512, 256)) == 135_407_834


def test_dlrm_is_its_formula():
    model = small(DLRM)
    randomize(model)
    features, _ = batch(6)
    bottom = relu_stack(features["dense"], layer_weights(model, "bottom"))
    vectors = np.asarray(model.embeddings(features["categorical"]))
    stacked = np.concatenate([bottom[:, None], vectors], axis=1)
    products = np.stack(
        [(stacked[:, i] * stacked[:, j]).sum(-1) for i in range(4) for j in range(i)], axis=1
    )
    top = relu_stack(np.concatenate([bottom, products], axis=1), layer_weights(model, "top"))
    kernel, bias = layer_weights(model, "logit")[0]
    np.testing.assert_allclose(model(features), top @ kernel + bias, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("projection_dim", [None, 2])
@pytest.mark.parametrize("cross", ["vector", "matrix"])
def test_dcn_is_its_formula(cross, projection_dim):
    if cross == "vector" and projection_dim is not None:
        with pytest.raises(ValueError, match="use cross='matrix'"):
            small(DCN, cross=cross, projection_dim=projection_dim)
        return
    model = small(DCN, cross=cross, projection_dim=projection_dim)
    randomize(model)
    features, _ = batch(6)
    vectors = np.asarray(model.embeddings(features["categorical"])).reshape(6, 12)
    x0 = np.concatenate([features["dense"], vectors], axis=1)
    x = x0
    for layer in model.crosses:
        *kernels, bias = [w.numpy() for w in layer.weights]
        crossed = x
        for kernel in kernels:
            crossed = crossed @ kernel
        x = x0 * crossed + bias + x if cross == "vector" else x0 * (crossed + bias) + x
    deep = relu_stack(x0, layer_weights(model, "deep"))
    kernel, bias = layer_weights(model, "logit")[0]
    expected = np.concatenate([x, deep], axis=1) @ kernel + bias
    np.testing.assert_allclose(model(features), expected, rtol=1e-3, atol=1e-3)


def test_vector_cross_by_hand():
    layer = VectorCross(kernel_initializer="ones")
    x0, x = tf.constant([[1.0, 2.0]]), tf.constant([[3.0, 4.0]])
    layer(x0, x)
    layer.bias.assign([0.5, -1.0])
    # x . w = 7: (1 * 7 + 0.5 + 3, 2 * 7 - 1 + 4)
    assert layer(x0, x).numpy().tolist() == [[10.5, 17.0]]


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("count", [1, 2, 27])
def test_dot_interaction_and_its_gradient_are_those_of_tensorflow_recommenders(rows, count):
    rng = np.random.default_rng(count)
    vectors = tf.Variable(rng.normal(size=(rows, count, 3)).astype("float32"))
    upstream = rng.normal(size=(rows, count * (count - 1) // 2)).astype("float32")
    theirs = tfrs.layers.feature_interaction.DotInteraction()
    layer = DotInteraction()
    found = []
    for interaction in (layer, lambda v: theirs(tf.unstack(v, axis=1))):
        with tf.GradientTape() as tape:
            products = tf.function(interaction)(vectors)
            weighted = tf.reduce_sum(products * upstream)
        found.append((products, tf.convert_to_tensor(tape.gradient(weighted, vectors))))
    assert layer.compute_output_shape(vectors.shape) == found[0][0].shape
    for ours, expected in zip(*found, strict=True):
        np.testing.assert_allclose(ours, expected, rtol=1e-6, atol=1e-6)


def test_unknown_cross_is_refused():
    with pytest.raises(ValueError, match=r"'vector' or 'matrix'.*'tensor'"):
        DCN(collection(), cross="tensor")


@pytest.mark.parametrize("kind", [DLRM, DCN])
def test_loss_is_the_mean_cross_entropy(kind):
    model = small(kind)
    features, labels = batch(5)
    p = 1 / (1 + np.exp(-model(features).numpy().astype("float64")))
    expected = -np.mean(labels * np.log(p) + (1 - labels) * np.log(1 - p))
    assert float(model.compute_loss((features, labels))) == pytest.approx(expected, rel=1e-5)
    assert float(model.log_loss.result()) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("kind", [DLRM, DCN])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int64", "uint8", "bool"])
def test_labels_of_any_number_type_and_without_a_last_axis(kind, dtype):
    model = small(kind)
    features, labels = batch(5)
    expected = float(model.compute_loss((features, labels)))
    for given in (labels, labels[:, 0]):
        assert float(model.compute_loss((features, given.astype(dtype)))) == expected


@pytest.mark.parametrize("kind", [DLRM, DCN])
@pytest.mark.parametrize("method", ["fit", "evaluate", "train_on_batch", "test_on_batch"])
def test_labels_without_a_last_axis_give_the_same_training(kind, method):
    features, labels = batch(9)
    seen = []
    for given in (labels, labels[:, 0], labels[:, 0].astype("int64")):
        keras.utils.set_random_seed(3)
        model = small(kind)
        model.compile(keras.optimizers.Adagrad(0.1))
        more = {} if "batch" in method else {"batch_size": 4, "verbose": 0}
        if method == "fit":
            more["shuffle"] = False
        getattr(model, method)(features, given, **more)
        seen.append(model.evaluate(features, given, batch_size=4, verbose=0, return_dict=True))
    assert seen[0] == seen[1] == seen[2]
    assert seen[0]["log_loss"] > 0.1


@pytest.mark.parametrize("kind", [DLRM, DCN])
def test_weights_of_rows(kind):
    model = small(kind)
    model.compile(keras.optimizers.SGD(0.0))
    features, labels = batch(6)
    weights = np.array([0, 1, 2, 0.5, 0, 3], "float32")
    p = 1 / (1 + np.exp(-model(features).numpy().astype("float64")))
    rows = -(labels * np.log(p) + (1 - labels) * np.log(1 - p))[:, 0]
    for given in (weights, weights[:, None]):
        found = model.evaluate(features, labels, sample_weight=given, verbose=0, return_dict=True)
        assert found["loss"] == pytest.approx((rows * weights).sum() / 6, rel=1e-5)
        expected = (rows * weights).sum() / weights.sum()
        assert found["log_loss"] == pytest.approx(expected, rel=1e-5)
    fitted = model.fit(features, labels[:, 0], class_weight={0: 1.0, 1: 3.0}, verbose=0)
    expected = (rows * (1 + 2 * labels[:, 0])).sum() / 6
    assert fitted.history["loss"][0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, r"pass fit and evaluate \(features, labels\)"),
        (np.zeros((5, 2), "float32"), r"`labels` must hold one number for each row.*\(5, 2\)"),
        (np.zeros((1, 5), "float32"), r"`labels` must hold one number for each row.*\(1, 5\)"),
        (np.zeros(4, "float32"), r"`labels` must hold one.*\(4,\) for 5 rows"),
        (np.zeros((), "float32"), "`labels` must hold one number for each row"),
        (np.array(["a"] * 5), "`labels` must hold one number for each row.*string"),
    ],
)
def test_labels_that_are_none(labels, message):
    model = small(DLRM)
    features, _ = batch(5)
    with pytest.raises(ValueError, match=message):
        model.compute_loss((features, labels))
    if labels is None:
        with pytest.raises(ValueError, match=message):
            model.compute_loss(features)


@pytest.mark.parametrize("kind", [DLRM, DCN])
def test_widths_are_checked_and_one_number_is_one_layer(kind):
    widths = ("bottom_units", "top_units") if kind is DLRM else ("deep_units",)
    for name in widths:
        one, listed = (small(kind, **{name: units}) for units in (6, [6]))
        assert trained(one) == trained(listed)
        assert kind.network_parameters(3, 4, **{name: 6}) == kind.network_parameters(
            3, 4, **{name: (6,)}
        )
        for wrong in ("6", 6.0, None, True, [0], [2.5], [-1], float("nan"), {"a": 1}):
            for make in (
                lambda **units: kind(collection(), **units),
                lambda **units: kind.network_parameters(3, 4, **units),
            ):
                with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
                    make(**{name: wrong})
    numbers = [("dense_features", 0)] + ([("cross_layers", -1)] if kind is DCN else [])
    for name, wrong in numbers:
        with pytest.raises(ValueError, match=f"`{name}` must be .*Received: {name}="):
            kind(collection(), **{name: wrong})


@pytest.mark.parametrize("kind", [DLRM, DCN])
@pytest.mark.parametrize("method", ["fit", "evaluate"])
def test_steps_are_traced_without_rewriting_their_python(kind, method, monkeypatch):
    model = small(kind)
    embed, files = model.embed, []

    def recorded(features):
        files.append(inspect.currentframe().f_code.co_filename)
        return embed(features)

    model.compile(keras.optimizers.Adagrad(0.1), steps_per_execution=2)
    monkeypatch.setattr(model, "embed", recorded)
    rows = tf.data.Dataset.from_tensor_slices(batch(8)).batch(4)
    getattr(model, method)(rows, verbose=0)
    assert set(files) == {__file__}  # AutoGraph's rewritten functions are in files of their own.


@pytest.mark.parametrize("kind", [DLRM, DCN])
def test_fits_with_a_last_batch_of_one(kind):
    model = small(kind)
    features, labels = batch(9)
    rows = tf.data.Dataset.from_tensor_slices((features, labels)).batch(4)
    model.compile(keras.optimizers.Adagrad(0.1))
    before = float(model.compute_loss((features, labels)))
    model.fit(rows, epochs=8, verbose=0)
    assert float(model.compute_loss((features, labels))) < before - 0.01
    one = {name: value[:1] for name, value in features.items()}
    assert model(one).shape == (1, 1)
    np.testing.assert_allclose(model(one), model(features)[:1], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("kind", "embeddings"),
    [
        (DLRM, collection("qr", collisions=3)),
        (DCN, collection("qr", collisions=3, operation="feature")),
    ],
)
def test_any_embedding_and_number_of_vectors(kind, embeddings):
    model = small(kind, embeddings)
    network = kind.network_parameters(
        embeddings.num_vectors,
        4,
        dense_features=DENSE,
        **(
            {"bottom_units": (8, 6), "top_units": (9, 7)}
            if kind is DLRM
            else {"cross_layers": 2, "deep_units": (8, 6)}
        ),
    )
    assert trained(model) == network + embeddings.footprint().parameters
    assert model(batch(3)[0]).shape == (3, 1)


@pytest.mark.parametrize(
    ("kind", "arguments"), [(DLRM, {}), (DCN, {}), (DCN, {"cross": "matrix", "projection_dim": 2})]
)
def test_config_and_file_round_trips(kind, arguments, tmp_path):
    model = small(kind, collection("qr", collisions=3), **arguments)
    randomize(model)
    features, _ = batch(4)
    config = json.loads(json.dumps(model.get_config()))
    copy = kind.from_config(config)
    copy.build_on_one_row()
    again = json.loads(json.dumps(copy.get_config()))
    assert again.pop("embeddings")["config"] == config.pop("embeddings")["config"]
    assert again == config
    copy.set_weights(model.get_weights())
    assert np.array_equal(copy(features), model(features))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is kind
    assert np.array_equal(loaded(features), model(features))


@pytest.mark.parametrize("kind", [DLRM, DCN])
def test_mixed_bfloat16(kind):
    keras.mixed_precision.set_global_policy("mixed_bfloat16")
    try:
        model = small(kind)
        features, labels = batch(6)
        model.compile(keras.optimizers.Adagrad(0.1))
        model.fit(tf.data.Dataset.from_tensors((features, labels)), verbose=0)
        logits = model(features)
    finally:
        keras.mixed_precision.set_global_policy("float32")
    assert logits.dtype == tf.float32
    assert np.isfinite(logits).all()
    assert {w.dtype for w in model.trainable_weights} == {tf.float32}
