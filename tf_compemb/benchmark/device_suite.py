"""The suite for a GPU: Keras 3 layers on JAX and torch, which needs no TensorFlow."""

from __future__ import annotations

from tf_compemb.benchmark.cases import Bound, Case, Group, Suite
from tf_compemb.benchmark.methods import METHODS

_RUNTIMES = {
    "jax": ("JAX", "jax.numpy.take"),
    "keras-torch": ("torch", "torch.nn.functional.embedding"),
}


def device_suite(quick: bool, device: str) -> Suite:
    """Forward, and forward with backward, of one table of ours and of the stock one.

    Args:
        quick: Whether tables and batches are tiny.
        device: "gpu" or "cpu".
    """
    sizes = [(1_000, 8)] if quick else [(10**6, 2048), (10**6, 65_536), (10**7, 65_536)]
    groups = []
    for engine, (runtime, plain) in _RUNTIMES.items():
        for task in ("forward", "backward"):
            for rows, batch in sizes:
                common = {"rows": rows, "batch": batch, "dim": 32, "device": device}
                names = {method: f"ours, {method}" for method in METHODS}
                names |= {"stock": "keras.layers.Embedding", "plain": plain}
                cases = [
                    Case(name, engine, task, {**common, "method": method})
                    for method, name in names.items()
                ]
                what = "forward" if task == "forward" else "forward and backward"
                name = f"{runtime}, {what}, {rows:,} rows, {batch:,} x 26 ids"
                bounds = [Bound(names[m], names["full"], 1.1) for m in ("hash", "qr", "crt")]
                groups.append(Group(name, cases, names["full"], names["plain"], bounds))
    return Suite(
        "gpu",
        f"Layers of Keras 3 on JAX and torch, on a {device.upper()}",
        "One table of width 32, compiled on JAX, as it is on torch; timed until the device is "
        "done. / base: over our full table. / limit: over the framework's own function.",
        groups,
    )
