"""Checkpoints from which a run goes on at exactly the next batch."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_compemb.storage.current_variable import rows_as_stored
from tf_compemb.training.errors import UserError
from tf_compemb.training.run_directory import RunDirectory

_KEPT = 2  # The newest, and one before it in case the newest is damaged.


class Checkpoints:
    """Saves and restores everything that decides the rest of a run.

    That is the model, its metrics, the optimiser, TensorFlow's generator of random numbers, the
    epoch and the step in it (from which the order of rows follows), and the best validation loss.
    Files are written by TensorFlow under temporary names; the `checkpoint` file that names the
    newest is replaced last.

    Args:
        run: The run's directory.
        model: Compiled and built model.
    """

    def __init__(self, run: RunDirectory, model: Any) -> None:
        self.epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.step_in_epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        self.seconds = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        self.best_loss = tf.Variable(float("inf"), dtype=tf.float64, trainable=False)
        self.best_epoch = tf.Variable(0, dtype=tf.int64, trainable=False)
        everything = tf.train.Checkpoint(
            model=model,
            optimizer=model.optimizer,
            generator=tf.random.get_global_generator(),
            epoch=self.epoch,
            step_in_epoch=self.step_in_epoch,
            seconds=self.seconds,
            best_loss=self.best_loss,
            best_epoch=self.best_epoch,
        )
        self._newest = tf.train.CheckpointManager(everything, str(run.checkpoints), _KEPT)
        self._best = tf.train.CheckpointManager(
            tf.train.Checkpoint(weights=model.weights),
            str(run.checkpoints / "best"),
            max_to_keep=1,
        )

    def save(self, epoch: int, step_in_epoch: int, seconds: float) -> None:
        """Saves the state before step `step_in_epoch` of `epoch`.

        Args:
            epoch: Number of the epoch, from 0.
            step_in_epoch: Number of the next step in it, from 0.
            seconds: Time spent in steps so far.
        """
        self.epoch.assign(epoch)
        self.step_in_epoch.assign(step_in_epoch)
        self.seconds.assign(seconds)
        with rows_as_stored():  # The optimiser is in it too, and has what they lack.
            self._newest.save()

    def restore(self) -> None:
        """Restores the newest checkpoint; a run that has none yet starts anew.

        Raises:
            UserError: The checkpoint does not fit the model.
        """
        path = self._newest.latest_checkpoint
        if path is None:
            return
        try:
            with rows_as_stored():
                self._newest.checkpoint.restore(path).assert_existing_objects_matched()
        except (AssertionError, ValueError, tf.errors.OpError) as error:
            raise UserError(
                f"The checkpoint {path} cannot be restored ({str(error).splitlines()[0]}); it was "
                "damaged, or written by another version. Start anew with another --out."
            ) from error

    def keep_if_best(self, epoch: int, validation_loss: float | None) -> None:
        """Keeps the model's weights if no earlier epoch had a lower validation loss.

        Without a validation row there is no loss, and the last epoch's weights are the run's.
        """
        if validation_loss is not None and validation_loss < float(self.best_loss.numpy()):
            self.best_loss.assign(validation_loss)
            self.best_epoch.assign(epoch)
            self._best.save()

    def restore_best(self) -> int | None:
        """Gives the model the weights of the epoch with the lowest validation loss.

        Returns:
            That epoch's number, from 0; None where no epoch's weights were kept.
        """
        path = self._best.latest_checkpoint
        if path is None:
            return None
        self._best.checkpoint.restore(path).assert_consumed()
        return int(self.best_epoch.numpy())
