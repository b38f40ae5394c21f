"""Criteo's click logs: read, prepare, batch, generate.

The names load on first use, so that importing this package (and `--help`) imports neither pyarrow
nor TensorFlow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tf_compemb._first_use import names_on_first_use

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

__getattr__, __dir__ = names_on_first_use(__name__, _MODULE_OF)
