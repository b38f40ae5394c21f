"""Semi-tensor-product train: a tensor train whose cores beyond the first are t squared smaller."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tf_compemb.arguments import positive_integer
from tf_compemb.layers.decomposition._train_layer import TensorTrainEmbedding
from tf_compemb.layers.registry import method


@method("stt")
class STTEmbedding(TensorTrainEmbedding):
    """Semi-tensor-product train: a tensor train whose cores beyond the first are smaller.

    Formula: `e(i) = G_1[i_1] |x G_2[i_2] ... |x G_s[i_s]`, digits of i, the most significant first;
        `A |x B = A (B (x) I_t)`, the left semi-tensor product.
    Parameters: `n_1 * d_1 * R_1 + sum_{k>1} (R_{k-1} / t) * n_k * (d_k / t) * R_k`,
        `prod n_k >= n`, `prod d_k = d`, `R_s = 1`, `t = semi_tensor`, `n = input_dim`,
        `d = output_dim`.
    Served as: the cores, float32; or all vectors as a table, where that is smaller.
    Does not give: what the train of the same ranks can express; each core beyond the first acts
        alike on t parts of what comes before. `semi_tensor=1` is TTEmbedding.
    Reference: Xia et al. 2022, https://arxiv.org/abs/2204.11091. The rows are those of the indexed
        product; the authors' training code reshapes without separating rows from columns.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        rank: Integer, cut to the largest that adds anything, to a multiple of `semi_tensor`; or a
            list of `num_cores - 1` such multiples.
        semi_tensor: Integer `t`, divides the ranks and the columns of all cores but the first.
        num_cores: Integer, how many cores; that of the factors if those are given.
        row_factors: None, or a list of the rows of the cores, product at least `input_dim`.
        column_factors: None, or a list of the columns of the cores, product `output_dim`.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` and Keras' own, see
            `CompressedEmbedding`.

    >>> layer = STTEmbedding(input_dim=1_000_000, output_dim=16, rank=16, num_cores=3)
    >>> tuple(layer(np.array([[1, 2], [3, 999_999]])).shape)
    (2, 2, 16)
    >>> layer.footprint().parameters  # of 16,000,000
    17600
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        rank: int | Sequence[int] = 16,
        semi_tensor: int = 2,
        num_cores: int = 2,
        row_factors: Sequence[int] | None = None,
        column_factors: Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        self.semi_tensor = positive_integer("semi_tensor", semi_tensor)
        super().__init__(
            input_dim,
            output_dim,
            rank=rank,
            num_cores=num_cores,
            row_factors=row_factors,
            column_factors=column_factors,
            step=self.semi_tensor,
            **kwargs,
        )

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {**super().get_config(), "semi_tensor": self.semi_tensor}
