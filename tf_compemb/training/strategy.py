"""Distribution strategies by name."""

from __future__ import annotations

import json
import os
from typing import Any

from tf_compemb.training.errors import UserError


def make_strategy(name: str) -> Any:
    """A `tf.distribute` strategy.

    Args:
        name: "none" for one device; "mirrored" for all GPUs of this host, or its logical CPU
            devices where it has none; "multiworker" for the hosts that TF_CONFIG names.
    """
    import tensorflow as tf

    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    return tf.distribute.MultiWorkerMirroredStrategy()


def check_replicas(strategy: Any, collection: Any) -> None:
    """Whether the methods of an `EmbeddingCollection` can be trained under a strategy.

    Raises:
        UserError: A method follows the gradients of one device, and there are several.
    """
    methods, replicas = collection.methods_of_one_device, strategy.num_replicas_in_sync
    if methods and replicas > 1:
        raise UserError(
            f"The method {' and '.join(methods)} follows the gradients of one device, and there "
            f"are {replicas}: train without --strategy."
        )


def own_out(out: str, strategy: str) -> str:
    """The run directory of this process: `out`, or for a worker but the first `out-worker-N`.

    All workers hold the same model and have to save at the same steps, each its own files.

    Args:
        out: Given as `--out`.
        strategy: Given as `--strategy`.

    Raises:
        UserError: "multiworker" without TF_CONFIG, or with one that names no task.
    """
    if strategy != "multiworker":
        return out
    try:
        task = json.loads(os.environ["TF_CONFIG"])["task"]
        is_first = task["type"] == "chief" or (task["type"] == "worker" and task["index"] == 0)
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(
            "--strategy multiworker needs the environment variable TF_CONFIG, which names the "
            "workers and this one's task; see "
            "https://www.tensorflow.org/guide/distributed_training."
        ) from error
    return out if is_first else f"{out}-{task['type']}-{task['index']}"
