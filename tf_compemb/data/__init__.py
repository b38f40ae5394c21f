"""Criteo's click logs: read, prepare, batch, generate.

The names load on first use, so that importing this package (and `--help`) imports neither pyarrow
nor TensorFlow.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tf_compemb.data.cache import open_or_prepare as open_or_prepare
    from tf_compemb.data.criteo_format import CATEGORICAL_FIELDS as CATEGORICAL_FIELDS
    from tf_compemb.data.criteo_format import DENSE_FIELDS as DENSE_FIELDS
    from tf_compemb.data.criteo_format import KAGGLE_CARDINALITIES as KAGGLE_CARDINALITIES
    from tf_compemb.data.criteo_format import transform_dense as transform_dense
    from tf_compemb.data.errors import DataError as DataError
    from tf_compemb.data.generator import generate as generate
    from tf_compemb.data.preparation import prepare as prepare
    from tf_compemb.data.prepared_dataset import PreparedDataset as PreparedDataset
    from tf_compemb.data.raw_rows import encode_raw as encode_raw

_MODULE_OF = {
    "CATEGORICAL_FIELDS": "criteo_format",
    "DENSE_FIELDS": "criteo_format",
    "KAGGLE_CARDINALITIES": "criteo_format",
    "transform_dense": "criteo_format",
    "DataError": "errors",
    "PreparedDataset": "prepared_dataset",
    "encode_raw": "raw_rows",
    "generate": "generator",
    "open_or_prepare": "cache",
    "prepare": "preparation",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_MODULE_OF})
