"""The package as Python's own tools see it, whatever is installed and chosen: nothing raises."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tf_compemb import layers
from tf_compemb._first_use import exported_classes
from tf_compemb._keras import BACKEND, LEGACY

ROOT = Path(__file__).resolve().parent.parent
LOOK = """
import importlib, inspect, pydoc
import tf_compemb
assert "QREmbedding" in dir(tf_compemb)
assert not {"keras", "tensorflow", "jax", "torch"} & {k for k, v in sys.modules.items() if v}
for name in ("", ".data", ".optimizers", ".layers", ".partitions", ".models"):
    try:
        module = importlib.import_module("tf_compemb" + name)
    except ImportError as error:
        print(f"{name}: {error}")
        continue
    assert set(dir(module)) >= set(getattr(module, "__all__", []))
    assert len(pydoc.render_doc(module)) > 100
    found = dict(inspect.getmembers(module))
    print(name, *sorted(n for n in getattr(module, "__all__", []) if hasattr(module, n)))
"""
STAR = """
from tf_compemb import *
print("star", QREmbedding.__name__, EmbeddingCollection.__name__, partitions.__name__)
"""


def run(script, *missing, **environment):
    blocked = "".join(f"sys.modules[{name!r}] = None\n" for name in missing)
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{blocked}{script}"],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


def lines_of(done):
    assert done.returncode == 0, done.stderr
    return {name: rest.split() for name, _, rest in map(cut, done.stdout.splitlines())}


def cut(line):
    return line.partition(" ")


IMPORTED = ["QREmbedding", "EmbeddingCollection", "tf_compemb.partitions"]


def test_everything_is_seen_where_everything_is_there():
    seen = lines_of(run(LOOK + STAR))
    assert seen["star"] == IMPORTED
    assert "QREmbedding" in seen[""]
    assert "prepare" in seen[".data"]
    assert ("models" in seen[""]) == LEGACY
    assert ("Adagrad" in seen[".optimizers"]) or BACKEND != "tensorflow"
    if not LEGACY:
        assert "TF_USE_LEGACY_KERAS=1" in seen[".models:"]


def test_what_is_not_installed_is_not_there():
    seen = lines_of(run(LOOK + STAR, "pyarrow", "tensorflow_recommenders"))
    assert seen["star"] == IMPORTED
    assert "prepare" not in seen[".data"]
    assert "models" not in seen[""]
    if LEGACY:
        assert seen[".models:"][:4] == ["tf_compemb.models", "needs", "the", "package"]


def test_without_a_backend_only_the_layers_are_not_there():
    seen = lines_of(run(LOOK, BACKEND))
    assert "QREmbedding" not in seen[""]
    assert "Footprint" in seen[""]
    assert "prepare" in seen[".data"]


@pytest.mark.parametrize(
    "environment",
    [
        {"KERAS_BACKEND": "numpy", "TF_USE_LEGACY_KERAS": "0"},
        {"KERAS_BACKEND": "torch", "TF_USE_LEGACY_KERAS": "1"},
    ],
)
def test_a_choice_that_cannot_work_leaves_the_layers_out(environment):
    seen = lines_of(run(LOOK, **environment))
    assert "QREmbedding" not in seen[""]
    assert "Footprint" in seen[""]


def test_names_of_layers_are_known_without_keras():
    classes = {name for name, value in vars(layers).items() if isinstance(value, type)}
    assert set(exported_classes("tf_compemb.layers")) == classes


@pytest.mark.parametrize(
    ("statement", "missing", "reason"),
    [
        ("from tf_compemb import *", BACKEND, f"needs the package {BACKEND}"),
        ("from tf_compemb import QREmbedding", BACKEND, f"needs the package {BACKEND}"),
        ("from tf_compemb.data import prepare", "pyarrow", "needs the package pyarrow"),
        ("import tf_compemb; tf_compemb.data.prepare", "pyarrow", "needs the package pyarrow"),
        ("from tf_compemb import QRembedding", "pyarrow", "cannot import name 'QRembedding'"),
    ],
)
def test_what_is_asked_for_and_not_there_says_why(statement, missing, reason):
    done = run(statement, missing)
    assert reason in done.stderr.splitlines()[-1], done.stderr
