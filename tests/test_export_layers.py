"""Every method, exported: its bytes to the byte, and its vectors in a process without this code."""

import json
import subprocess
import sys

import numpy as np
import pytest
from cases import CASES
from runtime import randomize, to_numpy

from tf_compemb._keras import BACKEND, keras

if BACKEND != "tensorflow":
    pytest.skip("a SavedModel is TensorFlow's", allow_module_level=True)

import tensorflow as tf

from tf_compemb.export import saved_model
from tf_compemb.export.sizes import stored_bytes
from tf_compemb.storage.table_rows import table_of

IDS = np.random.default_rng(0).integers(0, 50, (9, 3))
IDS[0] = 0, 1, 49

# TF-Serving's way: restored variables in a graph and a session, no Python objects.
LOADER = """
import json, sys
import numpy as np
import tensorflow as tf
for path, ids, target in json.loads(sys.stdin.read()):
    with tf.compat.v1.Session(graph=tf.Graph()) as session:
        meta = tf.compat.v1.saved_model.loader.load(session, ["serve"], path)
        signature = meta.signature_def["serving_default"]
        feed = {signature.inputs["ids"].name: np.array(ids)}
        np.save(target, session.run(signature.outputs["outputs"].name, feed))
assert "tf_compemb" not in sys.modules
"""


def model_of(layer):
    ids = keras.Input((3,), dtype="int64", name="ids")
    model = keras.Model(ids, layer(ids))
    randomize(layer)
    return model


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """Each case's layer with its export, and what one clean process gets from it."""
    folder = tmp_path_factory.mktemp("exported")
    layers, jobs = [], []
    for number, case in enumerate(CASES):
        layer = case.make(name=f"case_{number}")
        path = saved_model(model_of(layer), folder / f"model_{number}")
        layers.append((layer, path))
        jobs.append([str(path), IDS.tolist(), str(folder / f"{number}.npy")])
    done = subprocess.run(
        [sys.executable, "-c", LOADER],
        input=json.dumps(jobs),
        capture_output=True,
        text=True,
        cwd=folder,
    )
    assert done.returncode == 0, done.stderr
    return [(layer, path, np.load(job[2])) for (layer, path), job in zip(layers, jobs, strict=True)]


@pytest.fixture(params=range(len(CASES)), ids=[case.name for case in CASES])
def one(request, exported):
    return CASES[request.param], *exported[request.param]


def test_stored_bytes_are_the_formula(one):
    case, layer, path, _ = one
    formula = case.inference_bytes(layer.input_dim, 8)
    stored = stored_bytes(path)
    assert sum(stored.values()) == formula == layer.footprint().inference_bytes
    assert len(stored) == len(layer.for_inference().weights)


def test_a_clean_process_gets_the_same_vectors(one):
    case, layer, _, vectors = one
    expected = to_numpy(layer(IDS))
    tolerance = max(1e-6, case.served_tolerance * np.abs(expected).max())
    np.testing.assert_allclose(vectors, expected, rtol=1e-6, atol=tolerance)


def test_the_model_card_has_the_bytes(one):
    _, layer, path, _ = one
    card = json.loads((path / "model_card.json").read_text())
    size = layer.footprint()
    assert card["bytes"]["embeddings"] == card["bytes"]["weights"] == size.inference_bytes
    assert card["bytes"]["full_tables"] == 4 * layer.input_dim * 8
    assert card["bytes"]["network"] == 0


@pytest.mark.parametrize(("precision", "digits"), [("float16", 11), ("bfloat16", 8)])
@pytest.mark.parametrize("case", [CASES[0], CASES[3]], ids=lambda case: case.name)
def test_tables_of_two_bytes(case, precision, digits, tmp_path):
    layer = case.make()
    path = saved_model(model_of(layer), tmp_path / "model", precision=precision)
    assert sum(stored_bytes(path).values()) == 2 * case.parameters(layer.input_dim, 8)
    found = tf.saved_model.load(str(path)).signatures["serving_default"](ids=tf.constant(IDS))
    # Each factor is rounded to so many binary digits, so their product by about twice a half unit.
    np.testing.assert_allclose(found["outputs"], to_numpy(layer(IDS)), rtol=2.1 * 2.0**-digits)
    assert found["outputs"].dtype == tf.float32
    assert layer(IDS).dtype == tf.float32
    assert np.abs(found["outputs"].numpy() - to_numpy(layer(IDS))).max() > 0
    for weight in layer.weights:
        assert table_of(weight).served_rows is None
