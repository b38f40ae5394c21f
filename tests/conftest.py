"""Settings for all tests: which runtime is tested, quiet logs, the real data if it is there."""

import os
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
