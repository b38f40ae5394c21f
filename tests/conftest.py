"""Settings for all tests: which runtime is tested, quiet logs, the real data if it is there."""

import os
import re
import subprocess
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# What everybody has is tested, whether or not the compiled kernels are built here.
os.environ.setdefault("TF_COMPEMB_NATIVE_KERNELS", "0")

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_report_header():
    from tf_compemb._keras import RUNTIME

    return f"runtime: {RUNTIME}"


@pytest.fixture(autouse=True)
def seeded():
    from tf_compemb._keras import keras

    keras.utils.set_random_seed(7)


@pytest.fixture(autouse=True)
def no_lines_of_progress(monkeypatch):
    """What programs print does not depend on how slow the machine is."""
    from tf_compemb import progress_lines

    monkeypatch.setattr(progress_lines, "_FIRST_SECONDS", 3600.0)


@pytest.fixture
def every_table_is_read_by_rows(monkeypatch):
    """As if the tests' small tables were large."""
    from tf_compemb.storage import small_table

    monkeypatch.setattr(small_table, "SMALL_TABLE", 0)


@pytest.fixture(scope="session")
def real_data() -> Path:
    """The folder with the Criteo excerpts, which are never part of the repository."""
    folder = Path(os.environ.get("TF_COMPEMB_DATA", REPOSITORY.parent / "shared" / "data"))
    if not (folder / "criteo_kaggle_sample.txt.gz").exists():
        pytest.skip("the real Criteo excerpt is not here; set TF_COMPEMB_DATA to its folder")
    return folder


@pytest.fixture(scope="session")
def built_kernels(tmp_path_factory):
    """A cache folder with the kernels in it, or the user's own if they are in use already."""
    return folder_of_built_kernels(tmp_path_factory)


def folder_of_built_kernels(tmp_path_factory) -> Path:
    """Builds the kernels; without a compiler the test is skipped, and in CI an error."""
    from tf_compemb import native_kernels
    from tf_compemb.native_kernels import library
    from tf_compemb.native_kernels.build import BuildError, compiler

    if native_kernels.available():
        return library.library_path().parent.parent
    try:
        compiler()
    except BuildError as error:
        refuse = pytest.fail if os.environ.get("CI") in ("1", "true") else pytest.skip
        refuse(str(error))
    folder = tmp_path_factory.mktemp("cache")
    done = subprocess.run(
        [sys.executable, "-m", "tf_compemb.native_kernels"],
        env={**os.environ, "TF_COMPEMB_CACHE": str(folder)},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert re.search(r"^compiled in \d+ s$", done.stdout, re.MULTILINE)
    assert len(list(folder.glob("native_kernels/*"))) == 1
    return folder


@pytest.fixture
def kernels(built_kernels, monkeypatch):
    """The compiled kernels' module; layers and optimisers use it in the test."""
    from tf_compemb import native_kernels
    from tf_compemb.native_kernels import library

    monkeypatch.setenv("TF_COMPEMB_CACHE", str(built_kernels))
    monkeypatch.setenv(native_kernels.SWITCH, "1")
    library.loaded.cache_clear()
    yield library.loaded()
    library.loaded.cache_clear()
