"""Trains one model by one method and writes its run directory."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tf_compemb import native_kernels
from tf_compemb._keras import keras
from tf_compemb._program import command_of
from tf_compemb.training import build, report
from tf_compemb.training.checkpoints import Checkpoints
from tf_compemb.training.command_options import arguments
from tf_compemb.training.data_source import best_achievable
from tf_compemb.training.distillation import distillation_of
from tf_compemb.training.environment import peak_rss_bytes, versions
from tf_compemb.training.evaluation import Evaluator
from tf_compemb.training.history import History
from tf_compemb.training.interruption import InterruptionGuard, TrainingInterrupted
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.profile import ProfileCallback, summarize
from tf_compemb.training.progress import StepProgress
from tf_compemb.training.run_directory import RunDirectory, write_json
from tf_compemb.training.run_encoder import store_encoder
from tf_compemb.training.saved_runs import save_model
from tf_compemb.training.step_callback import Cadence, StepCallback
from tf_compemb.training.strategy import check_replicas, make_strategy


def train(options: TrainingOptions, run: RunDirectory, data: Any) -> dict[str, Any]:
    """Trains, evaluates and writes everything but nothing half.

    Args:
        options: With one method in `embedding`.
        run: A new directory, or with `options.resume` one that a run was started in.
        data: A `PreparedDataset`.

    Returns:
        What `metrics.json` holds.

    Raises:
        UserError: Options that cannot be met.
        TrainingInterrupted: A signal stopped the training, after a checkpoint.
    """
    started = time.perf_counter()
    trainer = Trainer(options, run, data)
    if not options.resume:
        run.create()
        write_json(run.config, describe_run(options, data))
    if not run.encoder.exists():
        store_encoder(data, run)
    trainer.fit()
    trainer.write_profile(run)
    metrics = trainer.evaluate()
    metrics["wall_seconds"] = time.perf_counter() - started
    save_model(trainer.model, run)
    report.plot_loss(trainer.history.rows, data.synthetic, run.loss_plot)
    write_json(run.metrics, metrics)
    return metrics


def describe_run(options: TrainingOptions, data: Any) -> dict[str, Any]:
    """What `config.json` holds: the options and the command that gives them, versions, data."""
    return {
        "command": command_of("train", arguments(options)),
        "options": options.to_json(),
        "versions": versions(),
        "data": {
            "path": str(data.path.resolve()),
            "fingerprint": data.fingerprint,
            "cardinalities": list(data.cardinalities),
            "synthetic": data.synthetic,
        },
    }


class Trainer:
    """One run's model, state and position.

    Args:
        options: See `train`.
        run: See `train`.
        data: See `train`.
    """

    def __init__(self, options: TrainingOptions, run: RunDirectory, data: Any) -> None:
        self.options = options
        self.data = data
        strategy = make_strategy(options.strategy)  # First: it sets TensorFlow's devices up.
        keras.mixed_precision.set_global_policy(options.precision)
        keras.utils.set_random_seed(options.seed)
        tf.random.set_global_generator(tf.random.Generator.from_seed(options.seed))
        self.collection = build.build_collection(options, data.cardinalities, data)
        check_replicas(strategy, self.collection)
        build.require_memory(options, self.collection)
        with strategy.scope():
            self.model = build.build_model(options, self.collection)
            self.model.build_on_one_row()
            optimizer = build.build_optimizer(options)
            self.cadence = self._cadence()
            self.model.compile(optimizer, steps_per_execution=self.cadence.execution)
            optimizer.build(self.model.trainable_variables)
            # After the model, so that its first weights do not depend on there being a teacher.
            self.model.learn_from(distillation_of(options, data))
            self.checkpoints = Checkpoints(run, self.model)
        self.history = History(run)
        self.evaluator = Evaluator(self.model)
        self.callback: StepCallback | None = None
        self.profiler = ProfileCallback(run.profile) if options.profile else None
        if options.resume:
            self.checkpoints.restore()

    def _cadence(self) -> Cadence:
        # TensorFlow's collectives inside a loop over steps confuse steps of different shapes.
        default = 16 if self.options.strategy == "none" else 1
        return Cadence.choose(
            self.data.steps("train", self.options.batch_size),
            self.options.steps_per_execution or default,
            self.options.checkpoint_every,
            self.options.validate_every,
        )

    def validate(self) -> dict[str, float | None]:
        """`quality` of the validation part."""
        return self.evaluator(self.data.batches("validation", self._evaluation_batch()))

    def _evaluation_batch(self) -> int:
        return max(2048, self.options.batch_size)

    def fit(self) -> None:
        """Trains from the current position to the end of the last epoch.

        Raises:
            TrainingInterrupted: A signal stopped the training, after a checkpoint.
        """
        first_epoch = int(self.checkpoints.epoch.numpy())
        step = int(self.checkpoints.step_in_epoch.numpy())
        self.history.restore(first_epoch * self.cadence.epoch + step)
        total = self.options.epochs * self.cadence.epoch
        label = f"{self.options.model} {self.options.embedding[0]}"
        with (
            InterruptionGuard() as guard,
            StepProgress(label, total, self.options.json) as progress,
        ):
            callback = self._make_callback(guard, progress.show)
            for epoch in range(first_epoch, self.options.epochs):
                self._fit_epoch(callback, epoch, step)
                step = 0
                if guard.received is not None:
                    raise TrainingInterrupted(guard.received)
        self.history.close()

    def _make_callback(
        self, guard: InterruptionGuard, show: Callable[[int, float], None]
    ) -> StepCallback:
        self.callback = StepCallback(
            self.cadence,
            self.history,
            self.checkpoints,
            guard,
            self.validate,
            show,
            several_epochs=self.options.epochs > 1,
        )
        return self.callback

    def _fit_epoch(self, callback: StepCallback, epoch: int, step: int) -> None:
        callback.begin_epoch(self.model, epoch, step, float(self.checkpoints.seconds.numpy()))
        batches = self.data.batches(
            "train",
            self.options.batch_size,
            shuffle_seed=self.options.seed,
            epoch=epoch,
            start_step=step,
            prefetch=self.options.prefetch,
        )
        # The profiler first: its trace ends before a validation begins.
        callbacks = [callback] if self.profiler is None else [self.profiler, callback]
        self.model.fit(batches, callbacks=callbacks, verbose=0)

    def write_profile(self, run: RunDirectory) -> None:
        """Writes what was found of the steps that were traced, if any were."""
        if self.profiler is not None and self.profiler.steps:
            names = self.collection.name, self.model.optimizer.name
            found = summarize(self.profiler, run.profile, *names)
            write_json(run.profile / "summary.json", found)

    def evaluate(self) -> dict[str, Any]:
        """Everything that `metrics.json` holds but the wall time.

        The weights are those of the epoch with the lowest validation loss.
        """
        best_epoch = self.checkpoints.restore_best()
        validation = self.validate()
        test = self.evaluator(self.data.batches("test", self._evaluation_batch()))
        return {
            **{f"test_{name}": value for name, value in test.items()},
            **{f"validation_{name}": value for name, value in validation.items()},
            **self._sizes(),
            **self._speed(),
            **self._provenance(),
            **best_achievable(self.data),
            "best_epoch": self.options.epochs if best_epoch is None else best_epoch + 1,
        }

    def _sizes(self) -> dict[str, Any]:
        footprint = self.collection.footprint()
        network = build.network_parameters(self.options, self.collection)
        return {
            "parameters": network + footprint.parameters,
            "embedding_parameters": footprint.parameters,
            "embedding_bytes": footprint.inference_bytes,
            "embedding_training_bytes": footprint.training_bytes,
            "optimizer_bytes": sum(
                math.prod(v.shape) * v.dtype.size for v in self.model.optimizer.variables
            ),
        }

    def _speed(self) -> dict[str, Any]:
        callback = self.callback
        steady = callback is not None and callback.steady_seconds > 0
        rate = (
            callback.steady_steps * self.options.batch_size / callback.steady_seconds
            if callback is not None and steady
            else None
        )
        return {
            "examples_per_second": rate,
            "training_seconds": float(self.checkpoints.seconds.numpy()),
            "peak_rss_bytes": peak_rss_bytes(),
        }

    def _provenance(self) -> dict[str, Any]:
        start, stop = self.data.splits["train"]
        options = self.options
        return {
            "model": options.model,
            "embedding": options.embedding[0],
            "seed": options.seed,
            "epochs": options.epochs,
            "steps": options.epochs * self.cadence.epoch,
            "batch_size": options.batch_size,
            "optimizer": options.optimizer,
            "learning_rate": float(self.model.optimizer.learning_rate.numpy()),
            "train_rows": stop - start,
            "synthetic": bool(self.data.synthetic),
            "native_kernels": native_kernels.available(),
        }
