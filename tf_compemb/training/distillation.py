"""Distillation: a model learns from the logits of a trained one as well as from the clicks."""

from __future__ import annotations

from typing import Any

import tensorflow as tf

from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions
from tf_compemb.training.run_directory import RunDirectory
from tf_compemb.training.saved_runs import load_run


class Distillation:
    """A trained model as the teacher of another.

    The loss of a row becomes `(1 - w) CE(label, p) + w tau^2 KL(q || r)`, where `q` and `r` are
    the teacher's and the student's probabilities of a click at temperature `tau`, sigmoids of the
    logits over tau. The teacher is called as in service and never trained. To be given to
    `ClickModel.learn_from`.

    References: Hinton et al. 2015, https://arxiv.org/abs/1503.02531; full tables teach compressed
        ones in Wang et al. 2020 (LLRec) and Xia et al. 2022, https://arxiv.org/abs/2204.11091.
        Their mixtures are of losses over items; w and tau for clicks are ours.

    Args:
        teacher: From features to logits (B, 1), such as a model of `load_run`.
        weight: Float `w` from 0 (plain training) to 1 (the labels are not used).
        temperature: Float `tau` above 0.

    Raises:
        ValueError: A number out of range.

    >>> import math
    >>> teacher = lambda features, training: tf.constant([[2.0]])
    >>> both = Distillation(teacher, weight=0.5, temperature=2.0)
    >>> losses = both.row_losses(tf.constant([[math.log(2.0)]]), tf.constant([[0.0]]), {})
    >>> round(float(losses[0, 0]), 4)  # 0.5 * 0.6931 + 0.5 * 4 * 0.1110
    0.5685
    """

    def __init__(self, teacher: Any, weight: float = 0.5, temperature: float = 2.0) -> None:
        if not 0 <= weight <= 1:
            raise ValueError(f"`weight` must be from 0 to 1. Received: weight={weight}")
        if not temperature > 0:
            raise ValueError(f"`temperature` must be above 0. Received: temperature={temperature}")
        self.teacher = teacher
        self.weight = weight
        self.temperature = temperature

    def row_losses(self, losses: tf.Tensor, logits: tf.Tensor, features: Any) -> tf.Tensor:
        """The losses of rows, with the teacher's part.

        Args:
            losses: Cross entropy with the labels, of any shape with B numbers.
            logits: The student's, (B, 1).
            features: What the teacher is called with.
        """
        wanted = tf.cast(self.teacher(features, training=False), logits.dtype) / self.temperature
        wanted = tf.stop_gradient(wanted)
        target = tf.sigmoid(wanted)
        cross = tf.nn.sigmoid_cross_entropy_with_logits(target, logits / self.temperature)
        entropy = tf.nn.sigmoid_cross_entropy_with_logits(target, wanted)
        divergence = tf.reshape(cross - entropy, tf.shape(losses))
        return (1 - self.weight) * losses + self.weight * self.temperature**2 * divergence


def distillation_of(options: TrainingOptions, data: Any) -> Distillation | None:
    """What `--distill` and the options with it ask for, or None.

    Args:
        options: Of the run.
        data: The `PreparedDataset` of the run.

    Raises:
        UserError: The teacher's run is not finished, or was trained on other data.
    """
    if options.distill is None:
        return None
    theirs = RunDirectory(options.distill).read_single_config()["data"]["fingerprint"]
    if theirs != data.fingerprint:
        raise UserError(
            f"The run in {options.distill} was trained on other data: its ids stand for other "
            "categories. Train the teacher on this data."
        )
    return Distillation(load_run(options.distill), options.distill_weight, options.temperature)
