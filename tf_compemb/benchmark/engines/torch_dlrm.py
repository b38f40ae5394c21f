"""The network of DLRM in torch: `plain_dlrm` beside the tables."""

from __future__ import annotations

import itertools
from typing import Any

from tf_compemb.benchmark.inputs import DENSE_FIELDS, KAGGLE_CARDINALITIES

BOTTOM_UNITS = (512, 256, 64)
TOP_UNITS = (512, 256)


def make_dlrm(dim: int) -> Any:
    """A module: dense features (B, 13) and vectors (B, 26, dim) to logits (B, 1)."""
    import torch

    def layers(widths: tuple[int, ...]) -> list[Any]:
        return [
            layer
            for wide, narrow in itertools.pairwise(widths)
            for layer in (torch.nn.Linear(wide, narrow), torch.nn.ReLU())
        ]

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            count = len(KAGGLE_CARDINALITIES) + 1
            self.bottom = torch.nn.Sequential(*layers((len(DENSE_FIELDS), *BOTTOM_UNITS, dim)))
            pairs = count * (count - 1) // 2
            self.top = torch.nn.Sequential(
                *layers((dim + pairs, *TOP_UNITS)), torch.nn.Linear(TOP_UNITS[-1], 1)
            )
            rows, columns = torch.tril_indices(count, count, -1)
            self.pairs = rows * count + columns

        def forward(self, dense: Any, vectors: Any) -> Any:
            bottom = self.bottom(dense)
            vectors = torch.cat([bottom[:, None, :], vectors], dim=1)
            products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
            return self.top(torch.cat([bottom, products[:, self.pairs]], dim=1))

    return Network()
