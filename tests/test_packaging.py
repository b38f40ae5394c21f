"""The package as it is installed: every folder in the wheel, nothing heavy at import."""

import configparser
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def setup_cfg():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    return config


def test_every_folder_with_an_init_is_a_package():
    listed = set(setup_cfg()["options"]["packages"].split())
    found = {
        ".".join(path.parent.relative_to(ROOT).parts)
        for path in (ROOT / "tf_compemb").rglob("__init__.py")
    }
    # rglob does not follow the links to the mapped folders on every Python.
    mapped = {
        f"tf_compemb.{name}"
        for name in ("models", "export", "serving")
        if (ROOT / name / "__init__.py").exists()
    }
    assert found | mapped == listed


def test_mapped_folders_refuse_to_be_imported_by_their_short_name():
    done = subprocess.run(
        [sys.executable, "-c", "import models"], cwd=ROOT, capture_output=True, text=True
    )
    assert "import tf_compemb.models" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    "statement",
    [
        "import tf_compemb, tf_compemb.partitions",
        "import tf_compemb.train as t; t.main(['--help'])",
        "import tf_compemb.data.__main__ as d; d.main(['--help'])",
        "import tf_compemb.experiments.__main__ as x; x.main(['--help'])",
        "import tf_compemb.export.__main__ as e; e.main(['--help'])",
        "import tf_compemb.benchmark.__main__ as b; b.main(['--help'])",
        "import tf_compemb.native_kernels.__main__ as n; n.main(['--help'])",
        "import tf_compemb.serving.__main__ as s; s.main(['compare', '--help'])",
    ],
)
def test_import_and_help_load_nothing_heavy(statement):
    script = f"""
import sys
try:
    {statement}
except SystemExit as stop:
    assert stop.code in (0, None), stop.code
heavy = {{"tensorflow", "keras", "tf_keras", "jax", "torch", "pyarrow", "matplotlib"}}
print("loaded:", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("loaded: []\n"), done.stdout


@pytest.mark.parametrize("backend", ["jax", "torch"])
def test_layers_do_not_need_tensorflow(backend):
    pytest.importorskip(backend, reason=f"{backend} is not installed")
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    script = """
import sys
sys.modules["tensorflow"] = None
from tf_compemb import QREmbedding
print(tuple(QREmbedding(100, 8)([1, 2]).shape))
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**environment, "KERAS_BACKEND": backend},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "(2, 8)\n", done.stderr


REFUSED = """
import sys
for name in ("jax", "torch", "openvino"):
    sys.modules[name] = None  # As on a machine that has none of them.
import tf_compemb
try:
    tf_compemb.layers
except AttributeError as error:
    print(error)
print("loaded:", sorted({"keras", "tf_keras", "tensorflow"} & set(sys.modules)))
"""
LEGACY_IS_REFUSED = "Unset TF_USE_LEGACY_KERAS, or set KERAS_BACKEND=tensorflow."
OTHERS_ARE_REFUSED = "Set KERAS_BACKEND to one of them."


@pytest.mark.parametrize(
    ("legacy", "backend", "configured", "message"),
    [
        ("1", "numpy", "tensorflow", LEGACY_IS_REFUSED),
        ("1", "jax", "tensorflow", LEGACY_IS_REFUSED),
        ("true", "torch", "tensorflow", LEGACY_IS_REFUSED),
        ("0", "numpy", "tensorflow", OTHERS_ARE_REFUSED),
        ("0", "openvino", "tensorflow", OTHERS_ARE_REFUSED),
        ("0", "", "numpy", OTHERS_ARE_REFUSED),
        ("0", "", "jax", "needs the package jax, which is not installed"),
    ],
)
def test_what_cannot_work_is_refused_before_keras_is_imported(
    legacy, backend, configured, message, tmp_path
):
    done = in_a_process(REFUSED, legacy, backend, configured, tmp_path)
    assert message in done.stdout, done.stderr
    assert done.stdout.endswith("loaded: []\n")


def in_a_process(script, legacy, backend, configured, keras_home):
    (keras_home / "keras.json").write_text(json.dumps({"backend": configured}))
    chosen = {"TF_USE_LEGACY_KERAS": legacy, "KERAS_BACKEND": backend}
    return subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, **chosen, "KERAS_HOME": str(keras_home)},
        capture_output=True,
        text=True,
    )


def test_legacy_keras_needs_no_word_about_the_backend(tmp_path):
    """Keras 3 is imported for its functions, and would follow its own configuration."""
    script = """
import sys
sys.modules["jax"] = None
from tf_compemb import QREmbedding
import keras
import tf_keras
print(issubclass(QREmbedding, tf_keras.layers.Layer), keras.config.backend())
"""
    done = in_a_process(script, "1", "", "jax", tmp_path)
    assert done.stdout == "True tensorflow\n", done.stderr


def test_a_keras_that_is_imported_already_has_its_backend(tmp_path):
    """The environment may say something else since."""
    script = """
import os, keras
os.environ.update(KERAS_BACKEND="torch", TF_USE_LEGACY_KERAS="1")
import tf_compemb._keras
print(tf_compemb._keras.BACKEND)
"""
    done = in_a_process(script, "0", "tensorflow", "jax", tmp_path)
    assert done.stdout == "tensorflow\n", done.stderr


@pytest.mark.slow
def test_the_wheel_holds_every_module(tmp_path):
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--no-deps", "--quiet", "-w", tmp_path, ROOT],
        check=True,
    )
    (wheel,) = tmp_path.glob("*.whl")
    names = set(zipfile.ZipFile(wheel).namelist())
    for package in setup_cfg()["options"]["packages"].split():
        folder = ROOT / package.replace("tf_compemb.models", "models").replace(".", "/")
        for module in folder.glob("*.py"):
            assert f"{package.replace('.', '/')}/{module.name}" in names
    assert "tf_compemb/py.typed" in names
    assert "tf_compemb/experiments/grids/figure5.json" in names
    assert not any(name.startswith(("models/", "tests/")) for name in names)
