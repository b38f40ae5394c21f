"""One entry a method: its class, small arguments, the paper's formula in NumPy, and its size.

The formulas work on the layer's weights by name and never call the layer.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from hashing_formulas import (
    WIDTHS,
    bit_blocks,
    ceil_div,
    chunk_rows,
    distinct_multisets,
    distinct_of_double_hash,
    distinct_of_lma,
    distinct_of_robe,
    double_hash,
    frequencies,
    lma,
    own_rows,
    robe,
    sampled_ids,
    skipping,
    succession,
    universal_hash_buckets,
    with_important_ids,
)

from tf_compemb import layers
from tf_compemb.partitions import Codes, Quotient, Remainder, chinese_remainder, mixed_radix


@dataclass(frozen=True)
class Case:
    layer: type
    options: dict
    formula: Callable  # (weights by name, ids, n) -> vectors
    parameters: Callable  # (n, d) -> trained numbers
    distinct: Callable = lambda n: n  # n -> distinct vectors among n ids
    input_dims: tuple = (50, 97, 1000)
    multiple: int = 1  # the output width must be a multiple of this
    index_bytes: Callable = lambda n: 0
    variance_tolerance: float = 0.05
    served_bytes: Callable | None = None  # (n, d) -> bytes, where not all that is trained is served
    served_tolerance: float = 0.0  # of the largest value
    prepare: Callable = lambda layer: None  # puts a built layer into a state that training leaves

    @property
    def name(self) -> str:
        options = "-".join(f"{v}" for v in self.options.values() if isinstance(v, (int, str)))
        return "-".join(
            filter(None, [self.layer.__name__, options or str(len(self.options) or "")])
        )

    def inference_bytes(self, n, d):
        if self.served_bytes is not None:
            return self.served_bytes(n, d)
        return 4 * self.parameters(n, d) + self.index_bytes(n)

    def make(self, input_dim=None, output_dim=8, **kwargs):
        n = input_dim or self.input_dims[0]
        if self.layer.needs_frequencies:
            kwargs["frequencies"] = frequencies(n)
        if self.layer.needs_sampled_ids:
            kwargs["sampled_ids"] = sampled_ids(n)
        return self.layer(n, output_dim, **self.options, **kwargs)


def path(w, ids, base, choices, hidden_layers):
    z = w["base"][base(ids)]
    for j, choose in enumerate(choices, start=1):
        rows = []
        for vector, c in zip(z, choose(ids), strict=True):
            for i in range(hidden_layers + 1):
                vector = vector @ w[f"kernel_{j}_{i}"][c] + w[f"bias_{j}_{i}"][c]
                if i < hidden_layers:
                    vector = np.maximum(vector, 0)
            rows.append(vector)
        z = np.array(rows)
    return z


def train(w, ids, cores, ranks, t=1):
    """Semi-tensor products A (B kron I_t) of the cores' rows, one id after the other."""
    rows = [len(w[f"core_{k}"]) for k in range(cores)]
    vectors = []
    for i in ids:
        digits = np.unravel_index(i, rows)
        product = w["core_0"][digits[0]].reshape(-1, (*ranks, 1)[0])
        for k in range(1, cores):
            after = (*ranks, 1)[k]
            core = w[f"core_{k}"][digits[k]].reshape(ranks[k - 1] // t, -1)
            product = product @ np.kron(core, np.eye(t))
            product = product.reshape(len(product), -1, after, t).swapaxes(2, 3).reshape(-1, after)
        vectors.append(product.ravel())
    return np.array(vectors)


def frequent_or_train(w, ids, n):
    row = own_rows(w, ids, n, common_row=0)
    has_own = np.isin(ids, w["frequent_ids"])[:, None]
    return np.where(has_own, w["frequent"][row], train(w, ids, 3, [3, 2]))


def hash_network(w, ids, depth, activation, encode):
    """Hashes in Python's own integers, then the layers with the moving means and variances."""
    multipliers, addends = w["hash_coefficients"].astype(object)
    hashes = [
        [(int(i) * a + b) % (2**31 - 1) % 10**6 for i in ids]
        for a, b in zip(multipliers, addends, strict=True)
    ]
    x = encode(np.array(hashes, "float64").T)
    for j in range(depth):
        x = x @ w[f"kernel_{j}"] + w[f"bias_{j}"]
        if f"scale_{j}" in w:
            x = (x - w[f"mean_{j}"]) / np.sqrt(w[f"variance_{j}"] + 1e-3)
            x = x * w[f"scale_{j}"] + w[f"shift_{j}"]
        x = activation(x)
    return x @ w[f"kernel_{depth}"] + w[f"bias_{depth}"]


def box_muller(hashes):
    first, second = np.split(hashes, 2, axis=1)
    radius = np.sqrt(-2 * np.log((first + 0.5) / 1e6))
    return np.hstack(
        [radius * np.cos(2e-6 * np.pi * second), radius * np.sin(2e-6 * np.pi * second)]
    )


BRAND_YEAR = np.stack([np.arange(50) // 7, np.arange(50) % 7])

CASES = [
    Case(layers.FullEmbedding, {}, lambda w, i, n: w["embeddings"][i], lambda n, d: n * d),
    Case(
        layers.HashEmbedding,
        {"collisions": 4},
        lambda w, i, n: w["embeddings"][i % ceil_div(n, 4)],
        lambda n, d: ceil_div(n, 4) * d,
        distinct=lambda n: ceil_div(n, 4),
    ),
    Case(
        layers.HashEmbedding,
        {"collisions": 3, "hash_function": "universal", "seed": 5},
        lambda w, i, n: w["embeddings"][universal_hash_buckets(i, ceil_div(n, 3), 5)],
        lambda n, d: ceil_div(n, 3) * d,
        distinct=lambda n: len(set(universal_hash_buckets(range(n), ceil_div(n, 3), 5))),
    ),
    Case(
        layers.QREmbedding,
        {"collisions": 7},
        lambda w, i, n: w["remainder"][i % 7] * w["quotient"][i // 7],
        lambda n, d: (7 + ceil_div(n, 7)) * d,
    ),
    Case(
        layers.QREmbedding,
        {"collisions": 4, "operation": "add"},
        lambda w, i, n: w["remainder"][i % 4] + w["quotient"][i // 4],
        lambda n, d: (4 + ceil_div(n, 4)) * d,
    ),
    Case(
        layers.QREmbedding,
        {"collisions": 4, "operation": "concat"},
        lambda w, i, n: np.concatenate([w["remainder"][i % 4], w["quotient"][i // 4]], axis=-1),
        lambda n, d: (4 + ceil_div(n, 4)) * d // 2,
        multiple=2,
    ),
    Case(
        layers.QREmbedding,
        {"collisions": 4, "modulus": "large"},
        lambda w, i, n: w["remainder"][i % ceil_div(n, 4)] * w["quotient"][i // ceil_div(n, 4)],
        lambda n, d: (ceil_div(n, 4) + ceil_div(n, ceil_div(n, 4))) * d,
    ),
    Case(
        layers.QREmbedding,
        {"modulus": 13, "operation": "feature"},
        lambda w, i, n: np.stack([w["remainder"][i % 13], w["quotient"][i // 13]], axis=-2),
        lambda n, d: (13 + ceil_div(n, 13)) * d,
    ),
    Case(
        layers.CompositionalEmbedding,
        {"partitions": mixed_radix(1000, [10, 12, 9])},
        lambda w, i, n: (
            w["partition_0"][i % 10] * w["partition_1"][i // 10 % 12] * w["partition_2"][i // 120]
        ),
        lambda n, d: (10 + 12 + 9) * d,
    ),
    Case(
        layers.CompositionalEmbedding,
        {"partitions": chinese_remainder(1000, [31, 33]), "operation": "add"},
        lambda w, i, n: w["partition_0"][i % 31] + w["partition_1"][i % 33],
        lambda n, d: (31 + 33) * d,
    ),
    Case(
        layers.CompositionalEmbedding,
        {"partitions": [Codes(BRAND_YEAR[0]), Codes(BRAND_YEAR[1])], "operation": "concat"},
        lambda w, i, n: np.concatenate(
            [w["partition_0"][BRAND_YEAR[0][i]], w["partition_1"][BRAND_YEAR[1][i]]], axis=-1
        ),
        lambda n, d: (8 + 7) * d // 2,
        input_dims=(50,),
        multiple=2,
        index_bytes=lambda n: 2 * n,
    ),
    Case(
        layers.PathEmbedding,
        {"collisions": 4, "hidden_units": (6,)},
        lambda w, i, n: path(w, i, lambda x: x // 4, [lambda x: x % 4], 1),
        lambda n, d: ceil_div(n, 4) * d + 4 * (2 * d * 6 + 6 + d),
        variance_tolerance=0.6,
    ),
    Case(
        layers.PathEmbedding,
        {"collisions": 3, "hidden_units": ()},
        lambda w, i, n: path(w, i, lambda x: x // 3, [lambda x: x % 3], 0),
        lambda n, d: ceil_div(n, 3) * d + 3 * (d * d + d),
        variance_tolerance=0.08,
    ),
    Case(
        layers.PathEmbedding,
        {"hidden_units": (24, 16), "partitions": [Quotient(20), Remainder(4), Remainder(5)]},
        lambda w, i, n: path(w, i, lambda x: x // 20, [lambda x: x % 4, lambda x: x % 5], 2),
        lambda n, d: ceil_div(n, 20) * d + 9 * (24 * d + 24 + 24 * 16 + 16 + 16 * d + d),
        variance_tolerance=0.9,
    ),
    Case(
        layers.FrequencyThresholdEmbedding,
        {"collisions": 5},
        lambda w, i, n: w["embeddings"][own_rows(w, i, n, ceil_div(n, 5) - 1)],
        lambda n, d: ceil_div(n, 5) * d,
        distinct=lambda n: ceil_div(n, 5),
        index_bytes=lambda n: 4 * (ceil_div(n, 5) - 1),
    ),
    Case(
        layers.MEmComEmbedding,
        {"collisions": 6},
        lambda w, i, n: w["shared"][i % ceil_div(n, 6)] * w["multipliers"][i],
        lambda n, d: ceil_div(n, 6) * d + n,
    ),
    Case(
        layers.MEmComEmbedding,
        {"num_buckets": 4, "bias": True},
        lambda w, i, n: w["shared"][i % 4] * w["multipliers"][i] + w["biases"][i],
        lambda n, d: 4 * d + 2 * n,
        variance_tolerance=0.3,
    ),
    Case(
        layers.LowRankEmbedding,
        {"rank": 2},
        lambda w, i, n: w["rows_of_ids"][i] @ w["projection"],
        lambda n, d: 2 * n + 2 * d,
        variance_tolerance=0.1,
    ),
    Case(
        layers.MLETEmbedding,
        {"inner_dim": 80},
        lambda w, i, n: w["rows_of_ids"][i] @ w["projection"],
        lambda n, d: 80 * n + 80 * d,
        served_bytes=lambda n, d: 4 * n * d,
        served_tolerance=1e-6,
    ),
    Case(
        layers.ANTEmbedding,
        {"num_anchors": 3, "nonzeros": 3},
        lambda w, i, n: w["transform"][i] @ w["anchors"],
        lambda n, d: 3 * n + 3 * d,
        # Three numbers a row of 5 bytes, and 4 of the row; a table where that is smaller.
        served_bytes=lambda n, d: min(19 * n + 4 + 4 * 3 * d, 4 * n * d),
        served_tolerance=1e-6,
        variance_tolerance=0.3,
    ),
    Case(
        layers.TTEmbedding,
        {"rank": [3, 2], "num_frequent": 15},
        frequent_or_train,
        # 4 x 4 x 4 rows of 2 x 2 x 2 columns; 5 x 5 x 4 of 2 x 1 x 2; 10 x 10 x 10 of 2 x 2 x 4.
        lambda n, d: {50: 24 + 48 + 16, 97: 30 + 30 + 16, 1000: 60 + 120 + 80}[n] + 15 * d,
        index_bytes=lambda n: 4 * 15,
        variance_tolerance=0.3,
    ),
    Case(
        layers.STTEmbedding,
        {"rank": 4, "semi_tensor": 2, "num_cores": 3},
        lambda w, i, n: train(w, i, 3, [4, 4], t=2),
        # 4 x 4 x 4 rows of 1 x 2 x 4 columns; 5 x 5 x 4 of 1 x 2 x 2; 10 x 10 x 10 of 2 x 2 x 4.
        lambda n, d: {50: 16 + 32 + 16, 97: 20 + 40 + 8, 1000: 80 + 80 + 40}[n],
        multiple=4,
        variance_tolerance=0.3,
    ),
    Case(
        layers.FPDEmbedding,
        {"rank": 2, "inner_rank": 2, "collisions": 8},
        lambda w, i, n: np.einsum(
            "xab,abc->xc",
            (w["remainder"][i % 8] * w["quotient"][i // 8]).reshape(-1, 2, 2),
            w["tensor"],
        ),
        lambda n, d: 4 * (8 + ceil_div(n, 8)) + 4 * d,
        variance_tolerance=0.4,
    ),
    Case(
        layers.BinaryCodeHashEmbedding,
        {},
        lambda w, i, n: sum(
            w[f"block_{j}"][b]
            for j, b in enumerate(bit_blocks(i, succession(n, ceil_div((n - 1).bit_length(), 2))))
        ),
        lambda n, d: {50: 8 + 7, 97: 16 + 7, 1000: 32 + 32}[n] * d,
    ),
    Case(
        layers.BinaryCodeHashEmbedding,
        {"block_bits": 3, "layout": "skip"},
        lambda w, i, n: sum(
            w[f"block_{j}"][b] for j, b in enumerate(bit_blocks(i, skipping(n, 3)))
        ),
        lambda n, d: {50: 8 + 8, 97: 8 + 4 + 4, 1000: 8 + 8 + 4 + 4}[n] * d,
    ),
    Case(
        layers.BinaryCodeHashEmbedding,
        {"block_bits": 3, "shared": True},
        lambda w, i, n: sum(w["blocks_table"][b] for b in bit_blocks(i, succession(n, 3))),
        lambda n, d: 8 * d,
        distinct=lambda n: distinct_multisets(n, 3),
        variance_tolerance=0.5,
    ),
    Case(
        layers.HashEmbeddings,
        {"num_buckets": 9, "seed": 4},
        lambda w, i, n: sum(
            w["importances"][i, j][:, None]
            * w["shared"][universal_hash_buckets(i, 9, 4 + 2**32 * j)]
            for j in (0, 1)
        ),
        lambda n, d: 9 * d + 2 * n,
        variance_tolerance=0.3,
    ),
    Case(
        layers.HashEmbeddings,
        {"collisions": 5, "num_hashes": 3, "num_importances": 20},
        lambda w, i, n: sum(
            w["importances"][i % 20, j][:, None]
            * w["shared"][universal_hash_buckets(i, ceil_div(n, 5), 2**32 * j)]
            for j in range(3)
        ),
        lambda n, d: ceil_div(n, 5) * d + 3 * 20,
    ),
    Case(
        layers.FrequencyDoubleHashEmbedding,
        {"num_frequent": 11, "num_buckets": 13},
        lambda w, i, n: double_hash(w, i, n),
        lambda n, d: (11 + 2 * 13) * d,
        index_bytes=lambda n: 44,
        distinct=lambda n: distinct_of_double_hash(n, 11, 13),
    ),
    Case(
        layers.FrequencyDoubleHashEmbedding,
        {"num_frequent": 6, "num_buckets": 10, "tail": "qr"},
        lambda w, i, n: np.where(
            own_rows(w, i, n, -1)[:, None] >= 0,
            w["frequent"][own_rows(w, i, n, -1)],
            w["tail_0"][i % 10] + w["tail_1"][i // 10],
        ),
        lambda n, d: (6 + 10 + ceil_div(n, 10)) * d,
        index_bytes=lambda n: 24,
    ),
    Case(
        layers.DeepHashEmbedding,
        {"num_hashes": 12, "hidden_units": (6, 5)},
        lambda w, i, n: hash_network(
            w, i, 2, lambda x: x * np.tanh(np.log1p(np.exp(x))), lambda h: 2 * h / (10**6 - 1) - 1
        ),
        lambda n, d: 13 * 6 + 7 * 5 + 6 * d + 2 * (6 + 5),
        index_bytes=lambda n: 2 * 4 * 12 + 2 * 4 * (6 + 5),
        served_bytes=lambda n, d: 4 * (13 * 6 + 7 * 5 + 6 * d) + 2 * 4 * 12,
        served_tolerance=1e-5,
    ),
    Case(
        layers.DeepHashEmbedding,
        {
            "num_hashes": 8,
            "hidden_units": (9,),
            "encoding": "gaussian",
            "activation": "relu",
            "batch_normalization": False,
            "seed": 3,
        },
        lambda w, i, n: hash_network(w, i, 1, lambda x: np.maximum(x, 0), box_muller),
        lambda n, d: 9 * 9 + 10 * d,
        index_bytes=lambda n: 2 * 4 * 8,
    ),
    Case(
        layers.UnifiedEmbedding,
        {"num_buckets": 40, "seed": 3},
        lambda w, i, n: np.concatenate([w["memory"][r] for r in chunk_rows(i, 40, 2, 3)], axis=-1),
        lambda n, d: 40 * d // 2,
        distinct=lambda n: len(set(zip(*chunk_rows(range(n), 40, 2, 3), strict=True))),
        multiple=2,
    ),
    Case(
        layers.ROBEEmbedding,
        {"memory_size": 37, "block_size": 3},
        lambda w, i, n: robe(w, i, 3, WIDTHS[n]),
        lambda n, d: 37,
        multiple=4,
    ),
    Case(
        layers.ROBEEmbedding,
        {"collisions": 5, "circular": False, "signs": False},
        lambda w, i, n: robe(w, i, WIDTHS[n], WIDTHS[n], circular=False, signs=False),
        lambda n, d: ceil_div(n, 5) * d,
        distinct=distinct_of_robe,
        multiple=4,
    ),
    Case(
        layers.LMAEmbedding,
        {"collisions": 4},
        lambda w, i, n: lma(w, i, n),
        lambda n, d: ceil_div(n, 4) * d,
        distinct=lambda n: distinct_of_lma(n, ceil_div(n, 4) * WIDTHS[n]),
        index_bytes=lambda n: 4 * (4 + 8) * ceil_div(ceil_div(n, 4), 4),
        multiple=4,
    ),
    Case(
        layers.CAFEEmbedding,
        {"num_hot": 9, "num_buckets": 13},
        lambda w, i, n: np.where(
            np.isin(i, [0, 1])[:, None], w["hot"][np.where(i == 1, 2, 0)], w["cold"][i % 13]
        ),
        lambda n, d: (9 + 13) * d,
        distinct=lambda n: 13 + 2,
        index_bytes=lambda n: 9 * (4 * 12 + 4) + 8,
        served_bytes=lambda n, d: 4 * (9 + 13) * d + 4 * 9,
        prepare=with_important_ids,
    ),
]
