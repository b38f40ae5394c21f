"""What is written is true: examples run, docstrings say what they must, tables are complete."""

import doctest
import importlib
import inspect
import pkgutil
import re
from pathlib import Path

import numpy as np
import pytest

import tf_compemb
from tf_compemb._keras import BACKEND, LEGACY
from tf_compemb.layers import get_method, method_names

ROOT = Path(__file__).resolve().parent.parent
# The others run everywhere.
NEED_TF_KERAS = ("models", "training", "train")
NEED_TENSORFLOW = (
    *("data", "optimizers"),
    *("export", "serving", "native_session", "_tensorflow_c", "native_kernels"),
)
NOT_HERE = (
    *(() if LEGACY else NEED_TF_KERAS),
    *(() if BACKEND == "tensorflow" else NEED_TENSORFLOW),
)

MODULES = [
    name
    for _, name, _ in pkgutil.walk_packages(tf_compemb.__path__, "tf_compemb.")
    if not name.endswith("__main__") and name.split(".")[1] not in NOT_HERE
]
methods = pytest.mark.parametrize("name", method_names())


@pytest.mark.parametrize("name", MODULES)
def test_examples_run(name):
    if name.endswith("beam_steps"):
        pytest.importorskip("apache_beam", reason="apache-beam is not installed (extra `beam`)")
    if name.endswith("preloaded") and not LEGACY:
        pytest.skip("prepares a process for tf_keras when it is imported")
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs={"np": np}, raise_on_error=False)
    assert result.failed == 0


@methods
def test_docstrings_of_methods_are_complete(name):
    text = inspect.getdoc(get_method(name))
    lines = [
        "Formula:",
        "Parameters:",
        "Served as:",
        "Does not give:",
        "Reference:",
        "Args:",
        ">>> ",
    ]
    positions = [text.find(line) for line in lines]
    assert -1 not in positions, lines[positions.index(-1)]
    assert positions == sorted(positions)
    assert re.search(r"https://\S+", text)


@methods
def test_arguments_of_methods_are_described(name):
    cls = get_method(name)
    for argument in inspect.signature(cls).parameters:
        assert re.search(rf"^ *\**{argument}: ", inspect.getdoc(cls), re.M), argument


@methods
def test_the_catalogue_has_the_method(name):
    catalogue = (ROOT / "tf_compemb/layers/README.md").read_text(encoding="utf-8")
    assert f"| `{name}` | `{get_method(name).__name__}` |" in catalogue


def test_every_method_is_exported():
    for name in method_names():
        cls = get_method(name)
        assert getattr(tf_compemb, cls.__name__) is cls
        assert cls.__name__ in tf_compemb.__all__


def test_the_readme_s_python_runs():
    """What is of tf_keras under tf_keras, and the rest under Keras 3."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.S)
    here = [block for block in blocks if ("TF_USE_LEGACY_KERAS" in block) == LEGACY]
    # It needs a trained run, and is tried where there is one (test_loading_by_keras.py).
    here = [block for block in here if "model/model.keras" not in block]
    assert here
    for block in here:
        exec(compile(block, "README.md", "exec"), {})


def test_links_to_files_lead_somewhere():
    for page in [*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("tf_compemb/**/*.md")]:
        for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
