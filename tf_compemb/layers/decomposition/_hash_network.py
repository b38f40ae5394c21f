"""The first numbers of a network over hashes, which give its vectors a wanted variance."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence

import numpy as np

# So many ids say what the hidden layers' means and variances are.
_SAMPLE = 4096


class InitialNetwork:
    """Kernels, biases, means and variances by name, drawn together when the first is asked for.

    Hidden kernels are He's. The moving means and variances start at what they are for a sample of
    ids, and the last kernel is scaled to the wanted variance of the output, in NumPy: initialisers
    may run where a runtime cannot compute yet.

    Args:
        encode: From NumPy ids (m,) to the input of the network (m, inputs).
        input_dim: Number of ids.
        widths: Of the input, each hidden layer and the output.
        activation: After each hidden layer, of NumPy arrays.
        epsilon: Under the root of a normalisation; None for a network without.
        variance: Of the output over ids.
    """

    def __init__(
        self,
        encode: Callable[[np.ndarray], np.ndarray],
        input_dim: int,
        widths: Sequence[int],
        activation: Callable[[np.ndarray], np.ndarray],
        epsilon: float | None,
        variance: float,
    ) -> None:
        self._encode = encode
        self._input_dim = input_dim
        self._widths = list(widths)
        self._activation = activation
        self._epsilon = epsilon
        self._variance = variance
        self._numbers: dict[str, np.ndarray] = {}

    def __getitem__(self, name: str) -> np.ndarray:
        if not self._numbers:
            # Python's generator, as in Keras: `keras.utils.set_random_seed` covers it.
            self._draw(np.random.default_rng(random.getrandbits(64)))
        return self._numbers[name]

    def _draw(self, rng: np.random.Generator) -> None:
        few = self._input_dim <= _SAMPLE
        ids = np.arange(self._input_dim) if few else rng.integers(0, self._input_dim, _SAMPLE)
        x = self._encode(ids)
        last = len(self._widths) - 2
        for i, (inputs, outputs) in enumerate(zip(self._widths, self._widths[1:], strict=False)):
            kernel = rng.normal(0.0, math.sqrt((1 if i == last else 2) / inputs), (inputs, outputs))
            x = x @ kernel
            bias = np.zeros(outputs)
            if i == last:
                mean = x.mean(axis=0)  # A part that all vectors would share.
                # Without a spread, as of one id, there is no scale that gives one.
                scale = math.sqrt(self._variance) / ((x - mean).std() or 1.0)
                kernel, bias = kernel * scale, -scale * mean
            elif self._epsilon is not None:
                mean, variance = x.mean(axis=0), x.var(axis=0)
                self._numbers |= {f"mean_{i}": mean, f"variance_{i}": variance}
                x = (x - mean) / np.sqrt(variance + self._epsilon)
            self._numbers |= {f"kernel_{i}": kernel, f"bias_{i}": bias}
            x = self._activation(x)
