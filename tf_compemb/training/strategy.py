"""Distribution strategies by name."""

from __future__ import annotations

import os
from typing import Any

import tensorflow as tf

from tf_compemb.training.errors import UserError


def make_strategy(name: str) -> Any:
    """A `tf.distribute` strategy.

    Args:
        name: "none" for one device; "mirrored" for all GPUs of this host, or its logical CPU
            devices where it has none; "multiworker" for the hosts that TF_CONFIG names.

    Raises:
        UserError: "multiworker" without TF_CONFIG.
    """
    if name == "none":
        return tf.distribute.get_strategy()
    if name == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        return tf.distribute.MirroredStrategy([device.name for device in devices])
    if "TF_CONFIG" not in os.environ:
        raise UserError(
            "--strategy multiworker needs the environment variable TF_CONFIG, which names the "
            "workers; see https://www.tensorflow.org/guide/distributed_training."
        )
    return tf.distribute.MultiWorkerMirroredStrategy()
