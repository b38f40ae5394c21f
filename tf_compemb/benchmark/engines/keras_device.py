"""Keras 3 layers on JAX or torch, on a GPU or a CPU; TensorFlow is not needed."""

from __future__ import annotations

import os
from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from tf_compemb.benchmark import inputs
from tf_compemb.benchmark.engines import UnavailableError
from tf_compemb.benchmark.methods import METHODS

PACKAGES = ("keras", "jax", "jaxlib", "torch", "numpy")
_FIELDS = len(inputs.KAGGLE_CARDINALITIES)


def prepare(task: str, settings: dict[str, Any]) -> Callable[[], Any]:
    """ "forward", or "backward": forward and the gradient of the tables, of `batch` x 26 ids.

    The settings' `method` is one of `METHODS`, "stock" (`keras.layers.Embedding`) or "plain" (the
    framework's own function on an array); `device` is "gpu" or "cpu".

    Raises:
        UnavailableError: The device is not there.
    """
    import keras

    keras.utils.set_random_seed(0)
    if keras.backend.backend() == "jax":
        return _on_jax(task, settings)
    return _on_torch(task, settings)


def device_name(backend: str) -> str | None:
    """The GPU that a framework sees, or None.

    Args:
        backend: "jax" or "torch".
    """
    if backend == "jax":
        import jax

        first = jax.devices()[0]
        return first.device_kind if first.platform == "gpu" else None
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def details() -> dict[str, str]:
    """What is reported beside the versions: the device."""
    name = device_name(os.environ["KERAS_BACKEND"])
    return {"device": name} if name else {}


def _on_jax(task: str, settings: dict[str, Any]) -> Callable[[], Any]:
    import jax
    import jax.numpy as jnp

    device = _device_of(settings, device_name("jax"))
    with jax.default_device(jax.devices(device)[0]):
        batches = [jnp.asarray(x, jnp.int32) for x in _ids(settings)]
        tables, lookup = _jax_lookup(settings, batches[0])
        cotangent = jnp.asarray(_cotangent(settings))

    def forward(tables: Any, ids: Any) -> Any:
        return lookup(tables, ids)

    def backward(tables: Any, ids: Any) -> Any:
        vectors, pull_back = jax.vjp(lambda t: lookup(t, ids), tables)
        return vectors, pull_back(cotangent)

    compiled = jax.jit({"forward": forward, "backward": backward}[task])
    ids = cycle(batches)
    return lambda: jax.block_until_ready(compiled(tables, next(ids)))


def _jax_lookup(settings: dict[str, Any], ids: Any) -> tuple[Any, Callable]:
    import jax.numpy as jnp

    if settings["method"] == "plain":
        table = jnp.asarray(_plain_table(settings))
        return table, lambda table, ids: jnp.take(table, ids, axis=0)
    layer = _layer(settings)
    layer(ids)
    untrained = [v.value for v in layer.non_trainable_variables]
    tables = [v.value for v in layer.trainable_variables]
    return tables, lambda tables, ids: layer.stateless_call(tables, untrained, ids)[0]


def _on_torch(task: str, settings: dict[str, Any]) -> Callable[[], Any]:
    import keras
    import torch

    device = {"gpu": "cuda", "cpu": "cpu"}[_device_of(settings, device_name("torch"))]
    batches = [torch.from_numpy(x).to(device) for x in _ids(settings)]
    ids = cycle(batches)
    synchronize = torch.cuda.synchronize if device == "cuda" else lambda: None
    with keras.device(device):
        tables, lookup = _torch_lookup(settings, batches[0], device)
    cotangent = torch.from_numpy(_cotangent(settings)).to(device)

    def forward() -> None:
        with torch.no_grad():
            lookup(next(ids))
        synchronize()

    def backward() -> None:
        torch.autograd.grad(lookup(next(ids)), tables, cotangent)
        synchronize()

    return {"forward": forward, "backward": backward}[task]


def _torch_lookup(settings: dict[str, Any], ids: Any, device: str) -> tuple[list[Any], Callable]:
    import torch

    if settings["method"] == "plain":
        table = torch.from_numpy(_plain_table(settings)).to(device).requires_grad_()
        return [table], lambda ids: torch.nn.functional.embedding(ids, table)
    layer = _layer(settings)
    layer(ids)
    return [v.value for v in layer.trainable_variables], layer


def _layer(settings: dict[str, Any]) -> Any:
    import keras

    if settings["method"] == "stock":
        return keras.layers.Embedding(settings["rows"], settings["dim"])
    from tf_compemb.layers import get_method

    name, options = METHODS[settings["method"]]
    return get_method(name)(settings["rows"], settings["dim"], **options)


def _device_of(settings: dict[str, Any], gpu: str | None) -> str:
    device = settings["device"]
    if device == "gpu" and gpu is None:
        raise UnavailableError("no GPU")
    return device


def _ids(settings: dict[str, Any]) -> np.ndarray:
    """Ids of one table, int64 (BATCHES, batch, 26)."""
    return inputs.id_batches([settings["rows"]] * _FIELDS, settings["batch"])


def _plain_table(settings: dict[str, Any]) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.normal(size=(settings["rows"], settings["dim"])).astype(np.float32)


def _cotangent(settings: dict[str, Any]) -> np.ndarray:
    return inputs.cotangent(settings["batch"], _FIELDS, settings["dim"])
