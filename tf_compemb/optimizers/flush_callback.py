"""Bringing all rows up to date, where whole tables are about to be read."""

from __future__ import annotations

from typing import Any

from tf_compemb._keras import keras


def flush_rows(optimizer: Any) -> None:
    """Applies to every row of every table the steps that it missed; only exact ones have any.

    Args:
        optimizer: Any optimiser, also one inside a `LossScaleOptimizer`.
    """
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    if hasattr(inner, "flush"):
        inner.flush()


class FlushRows(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
    """Flushes before evaluation and at the end of each epoch, for callbacks that read whole tables.

    Put it before `ModelCheckpoint`. It also builds the optimiser before the first step, which
    tf_keras would do too late for `Adam` and `AMSGrad`. The end of `fit` flushes without it.
    """

    def on_train_begin(self, logs: Any = None) -> None:
        """Builds the optimiser, if the model is built."""
        if self.model.built:
            self.model.optimizer.build(self.model.trainable_variables)

    def on_test_begin(self, logs: Any = None) -> None:
        """Flushes."""
        flush_rows(self.model.optimizer)

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Flushes."""
        flush_rows(self.model.optimizer)
