"""Deep hash embedding: no table, a network computes the vector from many hashes of the id."""

from __future__ import annotations

import functools
import itertools
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from tf_compemb._keras import in_training, ops
from tf_compemb.arguments import flag, one_of, positive_integers
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.budget import Settings
from tf_compemb.layers.decomposition._folded import FoldedEmbedding
from tf_compemb.layers.decomposition._hash_encoding import HashEncoding
from tf_compemb.layers.decomposition._hash_network import InitialNetwork
from tf_compemb.layers.registry import method
from tf_compemb.storage.table import Spec, StateSpec

_EPSILON = 1e-3
_MOMENTUM = 0.99
_WIDEST = 4096


@method("dhe")
class DeepHashEmbedding(FoldedEmbedding):
    """Deep hash embedding: no table; a network computes the vector from many hashes of the id.

    Formula: `e(i) = network(u(i))`, `u_j(i) = 2 h_j(i) / (m - 1) - 1` for k universal hashes `h_j`
        into m buckets, or Box and Muller's normal numbers of pairs of them; hidden layers
        `activation(normalize(x W + b))`, the last linear.
    Parameters: `(k + 1) w + (L - 1) (w + 1) w + (w + 1) d + 2 L w` for L hidden layers of w units,
        `k = num_hashes`, `d = output_dim`, whatever the number of ids.
    Served as: the network with its normalisations multiplied in, float32, and 8 bytes a hash; or
        all vectors as a table, where that is smaller.
    Does not give: cheap lookups (every id runs through the network, `k w` multiplications and
        more), or gradients of a few rows: each step moves all vectors. More often too small to
        learn from the data than large enough to overfit.
    Reference: Kang et al. 2021, https://arxiv.org/abs/2010.10784.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        num_hashes: Integer `k`, even for "gaussian".
        hidden_units: Integers, units of each hidden layer; `()` is a linear map of the hashes.
        encoding: "uniform" in [-1, 1], or "gaussian".
        activation: "mish" or "relu".
        batch_normalization: Whether each hidden layer normalises over the ids of a batch in
            training, and by moving averages in service.
        num_buckets: Integer `m` from 2 to 2**24, how many values a hash has.
        seed: Integer, chooses the hashes.
        **kwargs: `combiner`, `mask_zero`, `embeddings_initializer` (there is no table to draw) and
            Keras' own, see `CompressedEmbedding`.

    >>> layer = DeepHashEmbedding(input_dim=1_000_000, output_dim=16, hidden_units=(64,) * 5)
    >>> tuple(layer(np.array([[1, 2], [3, 999_999]])).shape)
    (2, 2, 16)
    >>> layer.footprint().parameters  # of 16,000,000
    83920
    """

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        num_hashes: int = 1024,
        hidden_units: int | Sequence[int] = (64, 64, 64, 64, 64),
        encoding: str = "uniform",
        activation: str = "mish",
        batch_normalization: bool = True,
        num_buckets: int = 1_000_000,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(input_dim, output_dim, **kwargs)
        self._encoding = HashEncoding(encoding, num_hashes, num_buckets, seed, self.input_dim)
        self.hidden_units = positive_integers("hidden_units", hidden_units)
        self.activation = one_of("activation", activation, list(_ACTIVATIONS))
        self.batch_normalization = flag("batch_normalization", batch_normalization)
        # By name; drawn when the first weight is made.
        self._initial: Any = InitialNetwork(
            self._encoding.of_array,
            self.input_dim,
            self._widths,
            lambda x: _ACTIVATIONS[activation](x, np, lambda y: np.logaddexp(0, y)),
            _EPSILON if self.batch_normalization else None,
            self.limit**2 / 3,
        )

    @property
    def _widths(self) -> list[int]:
        """Of the encoding, the hidden layers and the vectors."""
        return [self._encoding.num_hashes, *self.hidden_units, self.output_dim]

    @property
    def factor_bytes(self) -> int:
        """Bytes of the network without its normalisations, and of the hashes."""
        network = sum((a + 1) * b for a, b in itertools.pairwise(self._widths))
        return 4 * network + self._encoding.spec.bytes

    def table_specs(self) -> dict[str, Spec]:
        """No table, but what is not trained: the hashes, moving means and variances."""
        specs: dict[str, Spec] = {"hash_coefficients": self._encoding.spec}
        if self.batch_normalization:
            for i, units in enumerate(self.hidden_units):
                for name in (f"mean_{i}", f"variance_{i}"):
                    values = self._initial_array(name)
                    specs[name] = StateSpec((units,), "float32", values, averaged=True)
        return specs

    def weight_shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Kernels and biases, and the scales and shifts after each normalisation."""
        shapes: dict[str, tuple[tuple[int, ...], Any]] = {}
        for i, (inputs, outputs) in enumerate(itertools.pairwise(self._widths)):
            shapes[f"kernel_{i}"] = ((inputs, outputs), self._initializer(f"kernel_{i}"))
            shapes[f"bias_{i}"] = ((outputs,), self._initializer(f"bias_{i}"))
            if self.batch_normalization and i < len(self.hidden_units):
                shapes[f"scale_{i}"] = ((outputs,), "ones")
                shapes[f"shift_{i}"] = ((outputs,), "zeros")
        return shapes

    def _initial_array(self, name: str) -> Any:
        return lambda: np.asarray(self._initial[name], "float32")

    def _initializer(self, name: str) -> Any:
        return lambda shape, dtype=None: ops.convert_to_tensor(self._initial_array(name)())

    def encode(self, ids: Any) -> Any:
        """The input of the network: float32 (m, num_hashes) of ids (m,)."""
        return self._encoding.of_tensor(ids, self.hash_coefficients)

    def lookup(self, ids: Any) -> Any:
        """Hashes the ids and runs the network."""
        x = ops.cast(self.encode(ids), self.compute_dtype)
        for i in range(len(self.hidden_units)):
            x = self._layer(i, x)
            x = self._normalized(i, x) if self.batch_normalization else x
            x = _ACTIVATIONS[self.activation](x, ops, ops.softplus)
        return ops.cast(self._layer(len(self.hidden_units), x), self.compute_dtype)

    def _layer(self, i: int, x: Any) -> Any:
        kernel = ops.cast(ops.convert_to_tensor(getattr(self, f"kernel_{i}")), self.compute_dtype)
        bias = ops.cast(ops.convert_to_tensor(getattr(self, f"bias_{i}")), self.compute_dtype)
        return ops.matmul(x, kernel) + bias

    def _normalized(self, i: int, x: Any) -> Any:
        """Normalised over the batch in training, and by the moving averages otherwise."""
        dtype = "float64" if self.compute_dtype == "float64" else "float32"
        mean, variance, scale, shift = (
            ops.cast(ops.convert_to_tensor(getattr(self, f"{name}_{i}")), dtype)
            for name in ("mean", "variance", "scale", "shift")
        )
        x = ops.cast(x, dtype)
        if in_training():
            own_mean = ops.mean(x, axis=0)
            own_variance = ops.mean(ops.square(x - own_mean), axis=0)
            # A batch of empty bags has no mean.
            rate = ops.where(ops.shape(x)[0] > 0, 1 - _MOMENTUM, 0.0)
            self._move(f"mean_{i}", own_mean, rate)
            self._move(f"variance_{i}", own_variance, rate)
            mean, variance = own_mean, own_variance
        x = (x - mean) * (scale * ops.rsqrt(variance + _EPSILON)) + shift
        return ops.cast(x, self.compute_dtype)

    def _move(self, name: str, seen: Any, rate: Any) -> None:
        """A step of a moving average, where the rate is not 0."""
        average = ops.convert_to_tensor(getattr(self, name))
        seen = ops.cast(ops.stop_gradient(seen), "float32")
        step = ops.where(rate > 0, rate * (seen - average), ops.zeros_like(average))
        getattr(self, name).assign(average + ops.cast(step, "float32"))

    def served_factors(self) -> CompressedEmbedding:
        """The network with each normalisation multiplied into the layer before it."""
        if not self.batch_normalization:
            return self
        served = type(self).from_config({**self.get_config(), "batch_normalization": False})
        # Not a dictionary, which Keras would track.
        served._initial = types.MappingProxyType(self._folded_network())
        served.build(None)
        served.hash_coefficients.assign(self.hash_coefficients)
        return served

    def _folded_network(self) -> dict[str, np.ndarray]:
        def values(name: str) -> np.ndarray:
            return np.asarray(ops.convert_to_numpy(getattr(self, name)), "float64")

        last = len(self.hidden_units)
        network = {
            f"kernel_{last}": values(f"kernel_{last}"),
            f"bias_{last}": values(f"bias_{last}"),
        }
        for i in range(last):
            factor = values(f"scale_{i}") / np.sqrt(values(f"variance_{i}") + _EPSILON)
            network[f"kernel_{i}"] = values(f"kernel_{i}") * factor
            centred = values(f"bias_{i}") - values(f"mean_{i}")
            network[f"bias_{i}"] = centred * factor + values(f"shift_{i}")
        return network

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """Any width of the hidden layers, with as many hashes as leave room for some."""
        depth = len(positive_integers("hidden_units", options.get("hidden_units", (1,) * 5)))

        def arguments(hashes: int, number: int) -> dict[str, Any]:
            narrowest = min(32, hashes // 16)
            return {"num_hashes": hashes, "hidden_units": [narrowest + number] * depth}

        for hashes in (1024, 256, 64, 16):
            yield Settings(_WIDEST, functools.partial(arguments, hashes))

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "num_hashes": self._encoding.num_hashes,
            "hidden_units": list(self.hidden_units),
            "encoding": self._encoding.kind,
            "activation": self.activation,
            "batch_normalization": self.batch_normalization,
            "num_buckets": self._encoding.num_buckets,
            "seed": self._encoding.seed,
        }


def _mish(x: Any, numpy: Any, softplus: Any) -> Any:
    return x * numpy.tanh(softplus(x))


def _relu(x: Any, numpy: Any, softplus: Any) -> Any:
    del softplus
    return numpy.maximum(x, 0)


_ACTIVATIONS = {"mish": _mish, "relu": _relu}
