"""Measures some steps of a run in a process of its own, for `--estimate`.

`python -m tf_compemb.experiments.step_worker` reads a JSON object from standard input, with
`options` (of the run), `cardinalities`, and `data` (a prepared data set, or null for generated
batches), and prints a JSON object.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any

WARM_UP_STEPS, STEPS, EXECUTION = 64, 384, 16
EVALUATED_ROWS, EVALUATION_BATCH = 32_768, 2048


def measure(options: Any, cardinalities: Sequence[int], data: str | None) -> dict[str, float]:
    """Takes a few hundred steps.

    Returns:
        `start_seconds` from here to the end of the first steps, `step_seconds` (the median of
        the steps that follow: those that meet a large table's memory for the first time take many
        times longer, and a run has few of them), `evaluation_seconds_per_row`, `peak_rss_bytes`.
    """
    started = time.perf_counter()
    from tf_compemb.training import build
    from tf_compemb.training.environment import peak_rss_bytes, prepare_tensorflow

    prepare_tensorflow()
    prepared = None
    if data is not None:
        from tf_compemb.data import PreparedDataset

        prepared = PreparedDataset(data)
    collection = build.build_collection(options, cardinalities, prepared)
    model = build.build_model(options, collection)
    model.build_on_one_row()
    optimizer = build.build_optimizer(options)
    model.compile(optimizer, steps_per_execution=EXECUTION)
    optimizer.build(model.trainable_variables)
    batches = _batches(options.batch_size, cardinalities, prepared).repeat()
    ends = _execution_ends(model, batches.take(WARM_UP_STEPS + STEPS))
    ends = ends[WARM_UP_STEPS // EXECUTION - 1 :]
    executions = [later - earlier for earlier, later in itertools.pairwise(ends)]
    return {
        "start_seconds": ends[0] - started,
        "step_seconds": statistics.median(executions) / EXECUTION,
        "evaluation_seconds_per_row": _evaluate(model, cardinalities, prepared),
        "peak_rss_bytes": peak_rss_bytes(),
    }


def _execution_ends(model: Any, batches: Any) -> list[float]:
    """Trains; the times at which each `EXECUTION` steps had ended."""
    import tf_keras

    ends: list[float] = []
    note = tf_keras.callbacks.LambdaCallback(
        on_train_batch_end=lambda *_: ends.append(time.perf_counter())
    )
    model.fit(batches, callbacks=[note], verbose=0)
    return ends


def _evaluate(model: Any, cardinalities: Sequence[int], prepared: Any) -> float:
    from tf_compemb.training.evaluation import Evaluator

    evaluator = Evaluator(model)
    batches = _batches(EVALUATION_BATCH, cardinalities, prepared).repeat()
    count = EVALUATED_ROWS // EVALUATION_BATCH
    evaluator(batches.take(1))
    started = time.perf_counter()
    evaluator(batches.take(count))
    return (time.perf_counter() - started) / (count * _size(EVALUATION_BATCH, prepared))


def _batches(size: int, cardinalities: Sequence[int], prepared: Any) -> Any:
    """Batches of the data; or of generated rows with a long tail, as the benchmark's."""
    if prepared is not None:
        size = _size(size, prepared)
        return prepared.batches("train", size, shuffle_seed=0, drop_remainder=True)
    import tensorflow as tf

    from tf_compemb.benchmark.inputs import dense_batches, id_batches, label_batches

    features = {"dense": dense_batches(size), "categorical": id_batches(list(cardinalities), size)}
    return tf.data.Dataset.from_tensor_slices((features, label_batches(size)))


def _size(size: int, prepared: Any) -> int:
    """Rows of a batch: `size`, or all that there are."""
    return size if prepared is None else min(size, prepared.split_size("train"))


def main() -> int:
    """Answers one request."""
    from tf_compemb.training.options import TrainingOptions

    asked = json.load(sys.stdin)
    options = TrainingOptions.from_json(asked["options"])
    print(json.dumps(measure(options, asked["cardinalities"], asked["data"])))
    return 0


if __name__ == "__main__":
    sys.exit(main())
