"""Raw Criteo rows for the tests of `tf_compemb.data`, and the oracle that encodes them."""

from collections import Counter

import numpy as np

FIELDS = tuple(f"C{i}" for i in range(1, 27))


def make_line(label="0", integers=(), categories=()) -> str:
    """One row; what is not given is missing."""
    numbers = [*map(str, integers), *[""] * 13][:13]
    values = [*categories, *[""] * 26][:26]
    return "\t".join([label, *numbers, *values])


def random_lines(rows: int, seed: int = 0, distinct: int = 20) -> list[str]:
    """Rows whose columns have few values, some missing; the values depend on the column."""
    rng = np.random.default_rng(seed)
    lines = []
    for _ in range(rows):
        numbers = ["" if rng.random() < 0.2 else rng.integers(-3, 1000) for _ in range(13)]
        ids = np.minimum(rng.geometric(0.15, 26), distinct)
        values = ["" if rng.random() < 0.1 else f"{c:02d}-{i}" for c, i in enumerate(ids)]
        lines.append(make_line(str(rng.integers(2)), numbers, values))
    return lines


def write_lines(path, lines, end="\n"):
    """Writes the lines as UTF-8, each with its end, and returns the path."""
    path.write_bytes("".join(line + end for line in lines).encode())
    return path


def expected_dense(lines) -> np.ndarray:
    """log(1 + max(x, 0)), computed one number at a time."""
    import math

    return np.array(
        [
            [math.log(1 + max(int(x), 0)) if x else 0.0 for x in line.split("\t")[1:14]]
            for line in lines
        ]
    )


def expected_ids(lines, train: int, min_count: int = 1) -> tuple[np.ndarray, list[dict]]:
    """Ids by a dictionary for each field, filled from the first `train` lines in order."""
    columns = list(zip(*(line.split("\t")[14:] for line in lines), strict=True))
    tables, result = [], []
    for column in columns:
        counts = Counter(column[:train])
        table = {}
        for value in column[:train]:
            if counts[value] >= min_count and value not in table:
                table[value] = len(table) + 1
        tables.append(table)
        result.append([table.get(value, 0) for value in column])
    return np.array(result).T, tables
