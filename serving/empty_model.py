"""A model without tables: a server's memory with it is what the server itself needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from tf_compemb._native_log import import_tensorflow_quietly


def write_empty_model(directory: Path) -> Path:
    """Writes a SavedModel that adds one number to its input, as the next version in `directory`.

    It has one variable and one warm-up record, so that a server restores a checkpoint and runs the
    graph before the model is available, as with any exported model.

    Args:
        directory: The model's folder; made if it does not exist.

    Returns:
        The version's folder.
    """
    tf = import_tensorflow_quietly()
    from tf_compemb.export.versions import partial_version
    from tf_compemb.export.warmup import write_warmup

    module = tf.Module()
    module.one = tf.Variable(1.0)

    def add_one(x: Any) -> dict[str, Any]:
        return {"y": x + module.one}

    specification = tf.TensorSpec((None,), tf.float32, name="x")
    signature = tf.function(add_one, input_signature=[specification])
    with partial_version(directory) as (folder, publish):
        tf.saved_model.save(module, str(folder), signatures={"serving_default": signature})
        one_row = {"x": np.zeros(1, np.float32)}
        write_warmup(folder, directory.name, [("serving_default", one_row)])
        return publish(None)
