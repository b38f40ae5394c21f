"""Small raw files in Criteo's format, with a signal that a model can find."""

from pathlib import Path

import numpy as np


def write_rows(path: Path, rows: int, seed: int = 0, categories: int = 12) -> Path:
    """Rows whose click rate depends on C1's category and on I1."""
    rng = np.random.default_rng(seed)
    integers = rng.integers(0, 40, size=(rows, 13))
    ids = rng.integers(0, categories, size=(rows, 26))
    ids[:, 3:] //= categories  # One category: a model of so few rows shall not fit noise.
    logits = 2.0 * (ids[:, 0] % 2 * 2 - 1) + 0.05 * (integers[:, 0] - 20)
    labels = rng.random(rows) < 1 / (1 + np.exp(-logits))
    lines = [
        "\t".join(
            [str(int(label)), *map(str, numbers), *(f"{26 * i + f:08x}" for f, i in enumerate(row))]
        )
        for label, numbers, row in zip(labels, integers, ids, strict=True)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path
