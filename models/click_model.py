"""What DLRM and DCN share: inputs, task, loss, configuration. The embedding is an argument."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tf_compemb._keras import keras, traced_as_written
from tf_compemb.arguments import positive_integer

LOGIT_THRESHOLD = 0.0  # A logit above it predicts a click: probability over one half.

# Features and labels, and perhaps weights of the rows.
Batch = tuple[Any, ...]


def dense_parameters(units: Sequence[int]) -> int:
    """Weights and biases of fully connected layers, from the input's width to the last's.

    >>> dense_parameters([3, 2, 1])
    11
    """
    return sum((wide + 1) * narrow for wide, narrow in itertools.pairwise(units))


class ClickModel(tfrs.Model):  # type: ignore[misc]
    """Base of the click models: from a row's features to the logit of a click.

    Inputs: `{"dense": float (B, dense_features), "categorical": integer (B, fields)}`, B rows.
    Output: logits, float32 of shape (B, 1); the probability of a click is their sigmoid. Logits
    are what cross entropy is computed from, because a float32 probability near 0 or 1 has lost
    the digits that its logarithm needs. A row with a dense feature that is NaN or infinite, also
    one that the type of the computations cannot hold, has the logit NaN.

    A subclass says how the logit comes about (`call`) and how many parameters the network beside
    the tables has (`network_parameters`).

    Args:
        embeddings: `EmbeddingCollection`, or any layer that maps ids (B, fields) to vectors
            (B, V, d) and has `num_vectors` = V, `output_dim` = d and `cardinalities`.
        dense_features: Integer, width of the dense input.
    """

    def __init__(self, embeddings: Any, *, dense_features: int = 13, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.embeddings = embeddings
        self.dense_features = positive_integer("dense_features", dense_features)
        self.task = tfrs.tasks.Ranking(
            loss=keras.losses.BinaryCrossentropy(
                from_logits=True, reduction=keras.losses.Reduction.NONE
            )
        )
        self.log_loss = keras.metrics.Mean(name="log_loss")
        self._distillation: Any = None
        # The last layer computes in float32 under mixed precision: tfrs adds its float32
        # regularisation loss, and bfloat16 logits would have 8 bits.
        self.logit = keras.layers.Dense(1, dtype="float32", name="logit")

    @traced_as_written
    def train_step(self, inputs: Batch) -> dict[str, Any]:
        """A step of `fit` on one batch, as of `tfrs.Model`."""
        return super().train_step(inputs)

    @traced_as_written
    def test_step(self, inputs: Batch) -> dict[str, Any]:
        """A step of `evaluate` on one batch, as of `tfrs.Model`."""
        return super().test_step(inputs)

    def compute_loss(self, inputs: Batch, training: bool = False) -> tf.Tensor:
        """Mean cross entropy in nats over the rows of the global batch.

        In training, and with a teacher (`learn_from`), the mean of what `Distillation` makes of
        it; the metric stays the cross entropy.

        Under a distribution strategy each replica returns its share of that mean, so that the sum
        of the replicas' gradients is the gradient of a single device, also where a last batch
        falls on the replicas unevenly.

        Args:
            inputs: Features as of the class; labels of shape (B, 1) or (B,), numbers from 0 to 1 or
                booleans; and perhaps a weight for each row, of the same shapes, by which its loss
                counts.
            training: Whether the layers run in training mode.

        Returns:
            A float32 scalar.

        Raises:
            ValueError: There are no labels, or there is not one for each row.
        """
        features, labels, weights = _unpacked(inputs)
        logits = self(features, training=training)
        labels = _one_a_row("labels", labels, logits)
        row_losses = self.task(labels=labels, predictions=logits, compute_metrics=False)
        if weights is not None:
            weights = tf.squeeze(_one_a_row("sample_weight", weights, logits), axis=1)
        self.log_loss.update_state(row_losses, sample_weight=weights)
        if self._distillation is not None and training:
            row_losses = self._distillation.row_losses(row_losses, logits, features)
        if weights is not None:
            row_losses *= weights
        rows = tf.cast(tf.shape(row_losses)[0], tf.float32)
        replica = tf.distribute.get_replica_context()
        if replica is not None and replica.num_replicas_in_sync > 1:
            rows = replica.all_reduce(tf.distribute.ReduceOp.SUM, rows)
        return tf.reduce_sum(row_losses) / rows

    def learn_from(self, distillation: Any) -> None:
        """From now on the loss has a teacher's part, which is neither trained nor saved.

        Args:
            distillation: A `tf_compemb.training.distillation.Distillation`, or None to stop.
        """
        self._distillation = distillation

    def build_on_one_row(self) -> None:
        """Makes the variables by a forward pass over one row of zeros."""
        self(
            {
                "dense": tf.zeros([1, self.dense_features]),
                "categorical": tf.zeros([1, len(self.embeddings.cardinalities)], tf.int64),
            }
        )

    def build_from_config(self, config: dict[str, Any]) -> None:
        """Builds a model that Keras loads from a file; ids have no float placeholder."""
        del config
        self.build_on_one_row()

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON."""
        return {
            "name": self.name,
            "embeddings": keras.saving.serialize_keras_object(self.embeddings),
            "dense_features": self.dense_features,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects: Any = None) -> ClickModel:
        """The model that `get_config` described, with new weights."""
        del custom_objects
        config = dict(config)
        config["embeddings"] = keras.saving.deserialize_keras_object(config["embeddings"])
        return cls(**config)

    def embed(self, features: dict[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """Dense features (B, dense_features) and vectors (B, V, d), both of the compute type."""
        vectors = self.embeddings(features["categorical"])
        dense = tf.ensure_shape(features["dense"], [None, self.dense_features])
        return tf.cast(dense, self.compute_dtype), tf.cast(vectors, self.compute_dtype)

    def to_logit(self, hidden: tf.Tensor, dense: tf.Tensor) -> tf.Tensor:
        """Logits (B, 1) of the last hidden layer, or NaN where `dense` of `embed` is not finite.

        Not left to the network, in which ReLU makes a number of minus infinity.
        """
        finite = tf.reduce_all(tf.abs(dense) <= dense.dtype.max, axis=1, keepdims=True)
        return tf.where(finite, self.logit(hidden), float("nan"))


def _unpacked(inputs: Any) -> tuple[Any, Any, Any]:
    """Features, labels, and the rows' weights or None."""
    parts = inputs if isinstance(inputs, tuple) else (inputs,)
    if len(parts) < 2 or parts[1] is None:
        raise ValueError(
            "A click model learns from labels: pass fit and evaluate (features, labels)."
        )
    return parts[0], parts[1], parts[2] if len(parts) > 2 else None


def _one_a_row(name: str, values: Any, logits: tf.Tensor) -> tf.Tensor:
    """Numbers of shape (B,) or (B, 1) as float32 (B, 1)."""
    values = tf.convert_to_tensor(values)
    is_number = values.dtype.is_floating or values.dtype.is_integer or values.dtype.is_bool
    shape = values.shape
    one_a_row = shape.rank in (1, 2, None) and shape[1:].num_elements() in (1, None)
    if not (is_number and one_a_row and shape[:1].is_compatible_with(logits.shape[:1])):
        raise ValueError(
            f"`{name}` must hold one number for each row, shape (batch,) or (batch, 1). "
            f"Received: {values.dtype.name} of shape {shape} for {logits.shape[0]} rows"
        )
    return tf.reshape(tf.cast(values, tf.float32), tf.shape(logits))
