"""`import tf_compemb` and a Keras' `load_model` are all that a saved model needs."""

import importlib
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from runtime import to_numpy

import tf_compemb
from tf_compemb import EmbeddingCollection, QREmbedding, optimizers
from tf_compemb._keras import BACKEND, LEGACY, id_dtype, keras
from tf_compemb.saved_classes import modules_of_classes

ROOT = Path(__file__).resolve().parent.parent
NAME = keras.__name__
IDS = np.random.default_rng(0).integers(0, 50, size=(64, 3))
# Its only arguments: a folder, and statements.
LOAD = """
import pathlib, sys
import numpy as np
for statement in sys.argv[2:]:
    exec(statement)
folder = pathlib.Path(sys.argv[1])
ids, expected = np.load(folder / "ids.npy"), np.load(folder / "expected.npy")
for path in sorted(folder.glob("model*")):
    model = keras.models.load_model(path)
    found = np.asarray(model.predict_on_batch(ids))
    names = [type(layer).__name__ for layer in model.layers]
    print(path.name, abs(found - expected).max(), type(model.optimizer).__name__, *names)
click = {"dense": np.ones((2, 13), "float32"), "categorical": ids[:2]}
for path in sorted(folder.glob("click*")):
    model = keras.models.load_model(path)
    print(path.name, type(model).__name__, *model(click).numpy()[:, 0])
"""
CLICK = {"dense": np.ones((2, 13), "float32"), "categorical": IDS[:2]}


def compiled_model():
    inputs = keras.Input((3,), dtype=id_dtype())
    one = QREmbedding(50, 4, collisions=5)(inputs)
    all_fields = EmbeddingCollection([50, 60, 70], 4, "hash")(inputs)
    vectors = keras.layers.Concatenate()([one, all_fields])
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.Flatten()(vectors)))
    optimizer = optimizers.SGD(0.1) if BACKEND == "tensorflow" else "sgd"
    model.compile(optimizer, keras.losses.MeanSquaredError())
    model.train_on_batch(IDS, IDS[:, :1].astype("float32"))
    return model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Folder of files in all formats, with a batch and the predictions; and the click models'."""
    folder = tmp_path_factory.mktemp("saved")
    model = compiled_model()
    model.save(folder / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Both call HDF5 legacy.
        model.save(folder / "model.h5")
    if LEGACY:
        model.save(folder / "model_tf", save_format="tf")
    np.save(folder / "ids.npy", IDS)
    np.save(folder / "expected.npy", to_numpy(model.predict_on_batch(IDS)))
    return folder, click_models(folder) if LEGACY else []


def click_models(folder):
    from tf_compemb.models import DCN, DLRM

    lines = []
    for cls, sizes in ((DCN, (1, (4,))), (DLRM, ((4,), (4,)))):
        model = cls(EmbeddingCollection([50, 60, 70], 4, "qr"), *sizes)
        model.build_on_one_row()
        model.compile(optimizers.Adam(0.1))
        name = f"click_{cls.__name__}.keras"
        model.save(folder / name)
        outputs = " ".join(str(v) for v in model(CLICK).numpy()[:, 0])
        lines.append(f"{name} {cls.__name__} {outputs}")
    return lines


def load(folder, *statements):
    return subprocess.run(
        [sys.executable, "-c", LOAD, folder, *statements],
        cwd=ROOT,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize(
    "statements",
    [
        pytest.param(("import tf_compemb", f"import {NAME} as keras"), id="first"),
        pytest.param(
            (f"import {NAME} as keras", "import tf_compemb"), id="last", marks=pytest.mark.slow
        ),
        pytest.param(
            ("import tf_compemb, tensorflow", "keras = tensorflow.keras"),
            id="tf.keras",
            marks=[
                pytest.mark.slow,
                pytest.mark.skipif(BACKEND != "tensorflow", reason="tf.keras is TensorFlow's"),
            ],
        ),
        pytest.param(
            (f"import {NAME} as keras, keras as other, tf_compemb", "tf_compemb.QREmbedding"),
            id="classes imported",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_models_load_once_the_package_is_imported(saved, statements):
    folder, click = saved
    done = load(folder, *statements)
    lines = [line.split(" ") for line in done.stdout.splitlines()]
    models = [line for line in lines if line[0].startswith("model")]
    formats = ["model.h5", "model.keras", *(["model_tf"] if LEGACY else [])]
    assert [line[0] for line in models] == formats, done.stderr
    for _, difference, optimizer, *names in models:
        assert float(difference) < 1e-6
        assert optimizer == "SGD"
        assert {"QREmbedding", "EmbeddingCollection"} <= set(names)
    assert [" ".join(line) for line in lines[len(models) :]] == click


@pytest.mark.skipif(BACKEND != "tensorflow", reason="tf_keras runs on TensorFlow only")
def test_the_other_keras_says_what_to_do():
    other = importlib.import_module("keras" if LEGACY else "tf_keras")
    config = {
        "module": "tf_compemb.layers",
        "class_name": "QREmbedding",
        "config": {},
        "registered_name": "tf_compemb>QREmbedding",
    }
    remedy = "unset TF_USE_LEGACY_KERAS" if LEGACY else "set TF_USE_LEGACY_KERAS=1"
    with pytest.raises(ValueError, match=remedy):
        other.saving.deserialize_keras_object(config)


def test_every_class_of_saved_models_is_known():
    """A class that is missing here would load only where it happens to be imported."""
    homes = dict(modules_of_classes())
    for name in ("CompressedEmbedding", "ClickModel"):  # Bases, which nobody saves.
        del homes[name]
    registered = keras.saving.get_custom_objects()
    for name, home in homes.items():
        if BACKEND == "tensorflow" and (LEGACY or ".models" not in home):
            real = getattr(importlib.import_module(home), name)
            assert registered[f"tf_compemb>{name}"] is real
    ours = {
        name
        for name, value in registered.items()
        if name.startswith("tf_compemb>") and value.__module__.startswith("tf_compemb.")
    }
    assert ours == {f"tf_compemb>{name}" for name in modules_of_classes()}


def test_a_stand_in_makes_the_real_thing(monkeypatch):
    from tf_compemb import saved_classes

    cls = saved_classes._stand_in("QREmbedding", "tf_compemb.layers", NAME)
    assert isinstance(cls(10, 4), QREmbedding)
    layer = cls.from_config(QREmbedding(10, 4, collisions=3).get_config())
    assert isinstance(layer, tf_compemb.QREmbedding)
    assert layer.get_config()["collisions"] == 3
    if LEGACY:
        activation = saved_classes._stand_in("relu", "tf_compemb.models.relu", NAME)
        assert keras.layers.Dense(1, activation=activation)(np.full((1, 1), np.nan)).shape == (1, 1)
        assert activation(np.array([-1.0, 2.0])).numpy().tolist() == [0.0, 2.0]


@pytest.mark.skipif(not LEGACY, reason="the click models need tf_keras")
def test_the_readme_says_how_a_run_is_loaded(tmp_path):
    from click_rows import write_rows
    from training_program import SMALL, run_program

    data = write_rows(tmp_path / "train.txt", 200)
    run = tmp_path / "runs" / "qr"
    arguments = ["--data", data, *SMALL, "--model", "dcn", "--embedding", "qr", "--out", run]
    assert run_program(*arguments) == 0
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    (block,) = [block for block in blocks if "runs/qr/model/model.keras" in block]
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(
        [sys.executable, "-c", block + "print(type(model).__name__, model(rows).shape)"],
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.endswith("DCN (2, 1)\n"), done.stderr
