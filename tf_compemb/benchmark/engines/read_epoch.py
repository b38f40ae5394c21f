"""`python -m tf_compemb.benchmark.engines.read_epoch DATASET ANSWER`: reads prepared data once."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

BATCH_SIZE = 2048


def main(dataset_path: str, answer: str) -> None:
    """Times an epoch of shuffled batches, after a first one, and writes what it found as JSON."""
    from tf_compemb.data import PreparedDataset

    dataset = PreparedDataset(dataset_path)
    seconds = 0.0
    for _ in range(2):
        started = time.perf_counter()
        for _batch in dataset.batches("train", BATCH_SIZE, shuffle_seed=0):
            pass
        seconds = time.perf_counter() - started
    found = {"rows_per_second": dataset.split_size("train") / seconds, "seconds": seconds}
    Path(answer).write_text(json.dumps(found))


if __name__ == "__main__":
    main(*sys.argv[1:])
