"""What a Criteo row is: its 40 columns, its public sizes, and the split and transform we use.

One impression a line, 40 tab-separated columns without a header: the label (0 or 1), 13 integer
columns I1..I13, 26 categorical columns C1..C26. A missing value is an empty field. The Kaggle 2014
data and the 1TB click logs share this layout. Rows are in the order of time.
"""

from __future__ import annotations

import numpy as np

LABEL = "label"
DENSE_FIELDS = tuple(f"I{i}" for i in range(1, 14))
CATEGORICAL_FIELDS = tuple(f"C{i}" for i in range(1, 27))
COLUMNS = (LABEL, *DENSE_FIELDS, *CATEGORICAL_FIELDS)

# Distinct values of C1..C26 in the 45,840,617 training rows of the Kaggle data, as DLRM's
# pre-processing counts them; their sum is 33,762,577.
# fmt: off
KAGGLE_CARDINALITIES = (
    1460, 583, 10131227, 2202608, 305, 24, 12517, 633, 3, 93145, 5683, 8351593, 3194,
    27, 14992, 5461306, 10, 5652, 2173, 4, 7046547, 18, 15, 286181, 105, 142572,
)
# fmt: on
KAGGLE_ROWS = 45_840_617

SPLITS = ("train", "validation", "test")

DENSE_TRANSFORM = "log(1 + max(x, 0)) as float32; a missing value is 0"


def transform_dense(values: np.ndarray) -> np.ndarray:
    """Returns `log(1 + max(x, 0))` as float32, for integers in which missing is already 0.

    Negative values become 0, as in DLRM's pre-processing for the 1TB data: in the Kaggle data only
    I2 has any (-1, -2, -3 are markers and not amounts), and the logarithm is undefined from -1 on.
    The logarithm is taken in float64 and then rounded, so the result does not depend on how the
    platform vectorises float32.

    Args:
        values: integers of any shape.

    >>> transform_dense(np.array([-2, 0, 1, 7])).tolist()
    [0.0, 0.0, 0.6931471824645996, 2.079441547393799]
    """
    return np.log1p(np.maximum(values, 0).astype(np.float64)).astype(np.float32)


def split_rows(rows: int) -> dict[str, tuple[int, int]]:
    """Returns the `[start, stop)` of train, validation and test: the paper's split in time.

    Shi et al. 2020, section 5.1: six of the seven days are for training, the seventh is halved.
    The first `floor(6 * rows / 7)` rows stand for the six days. Of an odd rest, test has the larger
    half.

    >>> split_rows(109_711)
    {'train': (0, 94038), 'validation': (94038, 101874), 'test': (101874, 109711)}
    """
    train = rows * 6 // 7
    validation = train + (rows - train) // 2
    return {"train": (0, train), "validation": (train, validation), "test": (validation, rows)}


def record_dtype(id_type: str) -> np.dtype:
    """Returns the record of a prepared row: label, 13 floats, 26 ids, packed, little-endian.

    Args:
        id_type: `"int32"` (160 bytes a row) or `"int64"` (264 bytes a row).

    >>> record_dtype("int32").itemsize, record_dtype("int64").itemsize
    (160, 264)
    """
    id_code = {"int32": "<i4", "int64": "<i8"}[id_type]
    return np.dtype(
        [
            ("label", "<f4"),
            ("dense", "<f4", (len(DENSE_FIELDS),)),
            ("categorical", id_code, (len(CATEGORICAL_FIELDS),)),
        ]
    )
