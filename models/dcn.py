"""DCN: cross layers beside a deep network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import tensorflow as tf
import tensorflow_recommenders as tfrs

from tf_compemb._keras import register
from tf_compemb.arguments import natural_number, one_of, positive_integer, positive_integers
from tf_compemb.models.click_model import ClickModel, dense_parameters
from tf_compemb.models.relu import relu
from tf_compemb.models.vector_cross import VectorCross


@register
class DCN(ClickModel):
    """Deep and cross network, over embeddings of any kind.

    The dense features and the V embedding vectors, side by side, are x0 of width
    n = dense_features + V d. It goes through the cross layers and, beside them, through the deep
    ReLU network; one unit over both outputs gives the logit.

    `cross="vector"` is the DCN of 2017, which Shi et al. used: 2 n parameters a cross layer.
    `cross="matrix"` is DCN-V2 by tensorflow-recommenders' `Cross`: n x n + n parameters a layer, or
    2 n p + n with `projection_dim=p`.

    Inputs and output: see `ClickModel`.
    Parameters beside the tables: `network_parameters`; 373,578 with the paper's widths, V = 26 and
        d = 16. Table 1 of Shi et al. leaves 357,370 for a base of 135,050,464 numbers (see
        `DLRM`): 16,208 fewer, 0.012 % of the total. Matrix cross layers would have 1,475,250. A
        deep network of 512 and 256 (without the 64 that the paper's text has) with vector
        cross layers has 357,322, and meets the table exactly if the tables have three rows more,
        as does the DLRM of the note there. The text decides: ours has the 64.
    References: Wang et al. 2017, https://arxiv.org/abs/1708.05123 (vector); Wang et al. 2020,
        https://arxiv.org/abs/2008.13535, eqs. (1), (2) (matrix, low rank); widths as in Shi et al.
        2020, section 5, https://arxiv.org/abs/1909.02107.

    Args:
        embeddings: See `ClickModel`.
        cross_layers: Integer, number of cross layers.
        deep_units: Widths of the deep network; one number is one layer.
        cross: `"vector"` or `"matrix"`.
        projection_dim: Integer, rank of the matrix cross layers; None for full rank.
        dense_features: Integer, width of the dense input.

    Raises:
        ValueError: An unknown `cross`, or a `projection_dim` with vector cross layers.
    """

    def __init__(
        self,
        embeddings: Any,
        cross_layers: int = 6,
        deep_units: int | Sequence[int] = (512, 256, 64),
        *,
        cross: str = "vector",
        projection_dim: int | None = None,
        dense_features: int = 13,
        **kwargs: Any,
    ) -> None:
        _check_cross(cross, projection_dim)
        super().__init__(embeddings, dense_features=dense_features, **kwargs)
        self.cross = cross
        self.projection_dim = projection_dim
        self.deep_units = positive_integers("deep_units", deep_units, least=1)
        self.crosses = [
            _cross_layer(cross, projection_dim, f"cross_{i}")
            for i in range(natural_number("cross_layers", cross_layers))
        ]
        self.deep = tfrs.layers.blocks.MLP(
            [*self.deep_units], activation=relu, final_activation=relu, name="deep"
        )

    @staticmethod
    def network_parameters(
        num_vectors: int,
        output_dim: int,
        cross_layers: int = 6,
        deep_units: int | Sequence[int] = (512, 256, 64),
        cross: str = "vector",
        projection_dim: int | None = None,
        dense_features: int = 13,
    ) -> int:
        """Parameters beside the tables, computed without making any.

        Args:
            num_vectors: V, embedding vectors of a row.
            output_dim: d, their width.
            cross_layers: As of the class.
            deep_units: As of the class.
            cross: As of the class.
            projection_dim: As of the class.
            dense_features: As of the class.

        >>> DCN.network_parameters(26, 16), DCN.network_parameters(26, 16, cross="matrix")
        (373578, 1475250)
        """
        _check_cross(cross, projection_dim)
        deep_units = positive_integers("deep_units", deep_units, least=1)
        cross_layers = natural_number("cross_layers", cross_layers)
        width = dense_features + num_vectors * output_dim
        if cross == "vector":
            kernel = width
        else:
            kernel = width * width if projection_dim is None else 2 * width * projection_dim
        deep = dense_parameters([width, *deep_units])
        return cross_layers * (kernel + width) + deep + width + deep_units[-1] + 1

    def call(self, features: dict[str, tf.Tensor], training: bool = False) -> tf.Tensor:
        """Logits of a click, (B, 1)."""
        dense, vectors = self.embed(features)
        width = self.embeddings.num_vectors * self.embeddings.output_dim
        x0 = tf.concat([dense, tf.reshape(vectors, [-1, width])], axis=1)
        x = x0
        for layer in self.crosses:
            x = layer(x0, x)
        return self.to_logit(tf.concat([x, self.deep(x0)], axis=1), dense)

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, ready for JSON."""
        return {
            **super().get_config(),
            "cross_layers": len(self.crosses),
            "deep_units": self.deep_units,
            "cross": self.cross,
            "projection_dim": self.projection_dim,
        }


def _check_cross(cross: str, projection_dim: int | None) -> None:
    one_of("cross", cross, ("vector", "matrix"))
    if projection_dim is not None:
        positive_integer("projection_dim", projection_dim)
    if cross == "vector" and projection_dim is not None:
        raise ValueError(
            "`projection_dim` is the rank of matrix cross layers; use cross='matrix' with it. "
            f"Received: cross='vector', projection_dim={projection_dim}"
        )


def _cross_layer(cross: str, projection_dim: int | None, name: str) -> Any:
    if cross == "vector":
        return VectorCross(name=name)
    return tfrs.layers.feature_interaction.Cross(projection_dim=projection_dim, name=name)
