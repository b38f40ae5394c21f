"""Dense optimiser rules in NumPy float64, and a noisy regression to run them on.

The gradient of an occurrence of row i is `PULL * (w[i] - target[i]) + noise`: it depends on the
row as it was read, so that a stale read is seen, and never vanishes, so that rounding is not
amplified as it is near an optimum.
"""

import numpy as np

PULL = 0.1


class Problem:
    """A table, and batches of row numbers with noise: `ids[t]`, `noise[t]` for step t."""

    def __init__(self, rows, width, steps, batch, seed):
        rng = np.random.default_rng(seed)
        self.start = rng.normal(size=(rows, width))
        self.target = rng.normal(size=(rows, width))
        # Skewed, so that some rows are in every batch twice and some idle for hundreds of steps.
        self.ids = (rows * rng.random((steps, batch)) ** 4).astype("int32")
        self.noise = rng.normal(size=(steps, batch, width)) * np.geomspace(1, 1e-6, width)

    def gradient(self, table, step):
        """Dense gradient at a step: occurrences of a row are added up."""
        ids = self.ids[step]
        total = np.zeros_like(table)
        np.add.at(total, ids, PULL * (table[ids] - self.target[ids]) + self.noise[step])
        return total


class Sgd:
    def __init__(self, shape):
        pass

    def step(self, w, g, t, rate):
        return w - rate * g


class Adagrad:
    def __init__(self, shape):
        self.a = np.full(shape, 0.1)

    def step(self, w, g, t, rate):
        self.a += g**2
        return w - rate * g / np.sqrt(self.a + 1e-7)


class RowWiseAdagrad(Adagrad):
    def __init__(self, shape):
        super().__init__((shape[0], 1))

    def step(self, w, g, t, rate):
        self.a += np.mean(g**2, axis=1, keepdims=True)
        return w - rate * g / np.sqrt(self.a + 1e-7)


class Adam:
    amsgrad = False
    b1, b2 = 0.9, 0.999

    def __init__(self, shape):
        self.m, self.v, self.h = np.zeros((3, *shape))

    def touched(self, g):
        return np.ones(len(g), bool)

    def step(self, w, g, t, rate):
        rows, w = self.touched(g), w.copy()
        g = g[rows]
        self.m[rows] = self.b1 * self.m[rows] + (1 - self.b1) * g
        self.v[rows] = self.b2 * self.v[rows] + (1 - self.b2) * g**2
        self.h[rows] = np.maximum(self.h[rows], self.v[rows])
        root = np.sqrt(self.h if self.amsgrad else self.v)[rows]
        # Keras rounds the betas to float32 here, whatever the table's type.
        b1, b2 = float(np.float32(self.b1)), float(np.float32(self.b2))
        size = rate * np.sqrt(1 - b2**t) / (1 - b1**t)
        w[rows] -= size * self.m[rows] / (root + 1e-7)
        return w


class Amsgrad(Adam):
    amsgrad = True


class LazyAdam(Adam):
    def touched(self, g):
        return np.any(g != 0, axis=1)


class LazyAmsgrad(LazyAdam):
    amsgrad = True


RULES = {
    "sgd": Sgd,
    "adagrad": Adagrad,
    "rowwise_adagrad": RowWiseAdagrad,
    "adam": Adam,
    "amsgrad": Amsgrad,
    "lazy_adam": LazyAdam,
    "lazy_amsgrad": LazyAmsgrad,
}


def train(name, problem, rate, adjust=lambda g: g):
    """The table after all steps of a dense rule; `rate(t)` at step t = 1, 2, ..."""
    table, rule = problem.start, RULES[name](problem.start.shape)
    for step in range(len(problem.ids)):
        gradient = adjust(problem.gradient(table, step))
        table = rule.step(table, gradient, step + 1, rate(step + 1))
    return table
