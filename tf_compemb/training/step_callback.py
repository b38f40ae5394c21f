"""What happens between steps: history, validation, checkpoints, progress, a signal's stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tf_compemb._keras import keras
from tf_compemb.training.checkpoints import Checkpoints
from tf_compemb.training.errors import UserError
from tf_compemb.training.history import History
from tf_compemb.training.interruption import InterruptionGuard


@dataclass(frozen=True)
class Cadence:
    """How often things happen, in steps; all are multiples of `execution`.

    Attributes:
        epoch: Steps of an epoch.
        execution: Steps that TensorFlow takes between returns to Python.
        record: Steps of a row of the history.
        checkpoint: Steps between checkpoints.
        validation: Steps between validations; each epoch's end has one too.
    """

    epoch: int
    execution: int
    record: int
    checkpoint: int
    validation: int

    @classmethod
    def choose(
        cls, epoch: int, execution: int, checkpoint: int, validation: int | None, records: int = 100
    ) -> Cadence:
        """Rounds what was asked for to multiples of the execution.

        Args:
            epoch: Steps of an epoch.
            execution: Wish; made smaller where something shall happen more often.
            checkpoint: Wish.
            validation: Wish; None for each epoch's end only.
            records: About how many rows of history an epoch has.
        """
        execution = min(execution, epoch, checkpoint, validation or epoch)

        def multiple(steps: int) -> int:
            return execution * max(1, round(steps / execution))

        return cls(
            epoch=epoch,
            execution=execution,
            record=multiple(epoch // records),
            checkpoint=multiple(checkpoint),
            validation=epoch if validation is None else multiple(validation),
        )


class StepCallback(keras.callbacks.Callback):  # type: ignore[misc, name-defined]
    """Follows one `fit` over the rest of an epoch.

    Args:
        cadence: How often things happen.
        history: Takes the rows.
        checkpoints: Takes the state.
        guard: Tells of a signal.
        validate: Gives the validation part's `quality`.
        show: Called with (finished steps in all, loss of the last interval).
        several_epochs: Whether the best epoch's weights have to be kept.
    """

    def __init__(
        self,
        cadence: Cadence,
        history: History,
        checkpoints: Checkpoints,
        guard: InterruptionGuard,
        validate: Callable[[], dict[str, float | None]],
        show: Callable[[int, float], None],
        several_epochs: bool,
    ) -> None:
        super().__init__()
        self._cadence = cadence
        self._history = history
        self._checkpoints = checkpoints
        self._guard = guard
        self._validate = validate
        self._show = show
        self._several_epochs = several_epochs
        self._restored: list[Any] = []
        self._loss = math.nan
        self.epoch = 0
        self.step = 0
        self.seconds = 0.0
        self.steady_steps = 0
        self.steady_seconds = 0.0
        self.validation: dict[str, float | None] = {}

    def begin_epoch(self, model: Any, epoch: int, step: int, seconds: float) -> None:
        """Sets the position before `fit`: its epoch and step in it, and seconds spent so far."""
        self.epoch, self.step, self.seconds = epoch, step, seconds
        self._restored = [variable.numpy() for variable in model.log_loss.variables]

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Gives back the interval's sums, which `fit` has just set to zero."""
        for variable, value in zip(self.model.log_loss.variables, self._restored, strict=True):
            variable.assign(value)

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        """Starts the clock."""
        self._first = batch == 0
        self._steps_before = self.step
        self._started = time.perf_counter()
        self._batch = batch

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Does what is due after an execution, which ended with the fit's step `batch`."""
        elapsed = time.perf_counter() - self._started
        steps = batch - self._batch + 1
        self.step += steps
        self.seconds += elapsed
        if not self._first:  # The first execution contains the tracing of the graph.
            self.steady_steps += steps
            self.steady_seconds += elapsed
        at_end = self.step >= self._cadence.epoch
        self._record_if_due(at_end)
        stop = self._guard.received is not None
        if at_end or stop or self.step % self._cadence.checkpoint == 0:
            self.save()
        self._show(self._finished_steps(), self._loss)
        if stop:
            self.model.stop_training = True

    def save(self) -> None:
        """Writes the history and a checkpoint of the current position."""
        self._history.write()
        if self.step >= self._cadence.epoch:
            self._checkpoints.save(self.epoch + 1, 0, self.seconds)
        else:
            self._checkpoints.save(self.epoch, self.step, self.seconds)

    def _finished_steps(self) -> int:
        return self.epoch * self._cadence.epoch + self.step

    def _record_if_due(self, at_end: bool) -> None:
        validate = at_end or self.step % self._cadence.validation == 0
        if not (validate or self.step % self._cadence.record == 0):
            return
        self._loss = float(self.model.log_loss.result())
        self._require_finite("loss", self._loss)
        self.model.log_loss.reset_state()
        if validate:
            self.validation = self._validate()
            self._require_finite("validation loss", self.validation["loss"])
        self._history.add(
            self._finished_steps(),
            self.epoch + 1,
            self._loss,
            self.validation if validate else None,
        )
        if at_end and self._several_epochs:
            self._checkpoints.keep_if_best(self.epoch, self.validation["loss"])

    def _require_finite(self, what: str, loss: float | None) -> None:
        if loss is not None and not math.isfinite(loss):
            raise UserError(
                f"The {what} is not a finite number after step {self._finished_steps()}: lower "
                "--learning-rate."
            )
