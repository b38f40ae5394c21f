"""What is said where a package of an extra is not installed: one sentence, with a command."""

import configparser
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

import tf_compemb
from tf_compemb import missing_packages
from tf_compemb.missing_packages import MODULES, explained, install_command, missing, require

ROOT = Path(__file__).resolve().parent.parent
# Packages that a distribution brings under another name than its own.
MODULE_OF = {
    "tensorflow-serving-api": "tensorflow_serving",
    "grpcio": "grpc",
    "fbgemm-gpu-cpu": "fbgemm_gpu",
}
SENTENCE = (
    r"error: .* needs the package {}, which is not installed: install it with "
    r'`\S+ -m pip install -e "\S*\[{}\]"`(, or use REST)?\.\n'
)
SERVE = ["serving", "serve", "FOLDER", "--grpc-port", "0", "--rest-port", "0"]
# A program's arguments, the package that it finds missing, and the extra that it names.
PROGRAMS = [
    (["data", "generate", "--rows", "3", "--out", "OUT"], "pyarrow", "train"),
    (["data", "prepare", "ROWS", "--out", "OUT"], "pyarrow", "train"),
    (["data", "prepare", "ROWS", "--out", "OUT", "--runner", "beam"], "apache_beam", "beam"),
    *((["train", "--out", "OUT"], name, "train") for name in MODULES["train"]),
    (["experiments", "figure5", "--out", "OUT"], "matplotlib", "train"),
    (["export", "MODEL", "--out", "OUT"], "tensorflow", "train"),
    (["export", "--untrained", "--cardinalities", "9", "--out", "OUT"], "tf_keras", "train"),
    *((SERVE, name, "serving") for name in MODULES["serving"]),
    (["serving", "predict", "ROWS", "--grpc", "localhost:1", "--model", "m"], "grpc", "serving"),
    (["serving", "compare", "FOLDER"], "tensorflow_serving", "train,serving"),
    (["native-kernels"], "tensorflow", "train"),
]


def test_the_table_is_setup_cfg_s():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    for extra, modules in MODULES.items():
        names = re.findall(r"^([\w-]+)", config["options.extras_require"][extra], re.MULTILINE)
        brought = {MODULE_OF.get(name, name.replace("-", "_")) for name in names}
        assert set(modules) - {"torchrec"} <= brought, extra
        if extra != "benchmark":
            assert set(modules) == brought


def run_without(module, arguments, folder):
    rows = folder / "rows.txt"
    rows.write_text("\t".join(["1", *["2"] * 13, *["ab"] * 26]) + "\n")
    (folder / "model" / "1").mkdir(parents=True)
    with zipfile.ZipFile(folder / "m.keras", "w") as archive:
        archive.writestr("metadata.json", '{"keras_version": "3.10"}')
    paths = {"OUT": folder / "out", "ROWS": rows, "FOLDER": folder / "model"}
    paths["MODEL"] = folder / "m.keras"
    given = [str(paths.get(argument, argument)) for argument in arguments]
    # As if it was not installed: found neither by `find_spec` nor by `import`.
    script = f"""
import sys
sys.modules[{module!r}] = None
from tf_compemb.command_line import main
sys.exit(main({given!r}))
"""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    return subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, env=environment, capture_output=True, text=True
    )


@pytest.mark.parametrize(("arguments", "module", "extra"), PROGRAMS)
def test_programs_say_what_to_install(arguments, module, extra, tmp_path):
    done = run_without(module, arguments, tmp_path)
    assert re.fullmatch(SENTENCE.format(module, extra), done.stderr), done.stderr
    assert done.returncode == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("statement", "module"),
    [
        ("from tf_compemb.data import prepare", "pyarrow"),
        ("from tf_compemb.export import saved_model", "tensorflow"),
        ("from tf_compemb.native_session import NativeSession as N; N('m')", "tensorflow"),
        ("from tf_compemb.serving.client import GrpcClient as C; C('localhost:1')", "grpc"),
    ],
)
def test_what_is_loaded_on_first_use_says_what_to_install(statement, module):
    script = f"""
import sys
sys.modules[{module!r}] = None
sys.modules["google"] = None
{statement}
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    last = done.stderr.splitlines()[-1]
    assert f"needs the package {module}, which is not installed: install it with `" in last


@pytest.mark.parametrize(
    ("backend", "legacy", "module", "extra"),
    [
        ("", "0", "tensorflow", "train"),
        ("tensorflow", "0", "tensorflow", "train"),
        ("jax", "0", "jax", "jax"),
        ("torch", "0", "torch", "torch"),
        ("", "1", "tensorflow", "train"),
        ("", "1", "tf_keras", "train"),
    ],
)
def test_a_layer_without_its_backend_says_what_to_install(backend, legacy, module, extra, tmp_path):
    script = f"""
import sys
sys.modules[{module!r}] = None
from tf_compemb import QREmbedding
"""
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={
            **os.environ,
            "KERAS_BACKEND": backend,
            "TF_USE_LEGACY_KERAS": legacy,
            "KERAS_HOME": str(tmp_path),
        },
        capture_output=True,
        text=True,
    )
    last = done.stderr.splitlines()[-1]
    assert f"needs the package {module}, which is not installed" in last
    assert f'[{extra}]"`' in last


class Distribution:
    def __init__(self, origin):
        self.origin = origin

    def read_text(self, name):
        assert name == "direct_url.json"
        return self.origin


@pytest.mark.parametrize(
    ("origin", "source"),
    [
        (json.dumps({"url": "file:///a%20b/tf_compemb-1-py3-none-any.whl"}), "/a b/tf_compemb-1-p"),
        (None, f"tf_compemb-{tf_compemb.__version__}-py3-none-any.whl"),
        (json.dumps({"url": "https://a.org/tf_compemb-1.whl"}), "tf_compemb-0.1"),
    ],
)
def test_the_command_installs_from_where_the_package_came(monkeypatch, tmp_path, origin, source):
    monkeypatch.setattr(missing_packages, "__file__", str(tmp_path / "tf_compemb" / "a.py"))
    monkeypatch.setattr(importlib.metadata, "distribution", lambda name: Distribution(origin))
    command = install_command("train", "python")
    assert command.startswith(f'python -m pip install "{source}')
    assert command.endswith('[train]"')


def test_the_command_in_a_clone_is_the_readme_s(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "executable", str(ROOT / ".venv" / "bin" / "python"))
    assert install_command("train,jax") == ('.venv/bin/python -m pip install -e ".[train,jax]"')


def test_the_readme_names_the_wheel_as_it_is_called():
    name = f"tf_compemb-{tf_compemb.__version__}-py3-none-any.whl"
    assert name in (ROOT / "README.md").read_text(encoding="utf-8")


def test_other_errors_stay_what_they_are():
    require("Nothing", ("json",), "train")
    for error in (
        ImportError("a fault within", name="pyarrow"),
        ModuleNotFoundError("no", name="somebody_s_module"),
        ModuleNotFoundError("no"),
        missing("h11"),
    ):
        assert explained(error) is error
    found = explained(ModuleNotFoundError("no", name="tensorflow.python"), "serving")
    assert str(found).endswith('[serving]"`.')
    assert "the package tensorflow," in str(found)
