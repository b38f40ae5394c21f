"""torch's sparse embeddings, FBGEMM's table batched embeddings and torchrec's fused ones."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from typing import Any

import numpy as np

from tf_compemb.benchmark import inputs

PACKAGES = ("torch", "fbgemm-gpu-cpu", "torchrec", "numpy")
_RATES = {"sgd": 0.1, "adagrad": 0.02, "rowwise_adagrad": 0.02, "lazy_adam": 1e-3, "amsgrad": 1e-3}


def prepare(task: str, settings: dict[str, Any]) -> Callable[[], Any]:
    """A "lookup", embedding "step" or whole DLRM "train" step of one batch.

    The settings' `method` is "bags" (an EmbeddingBag for each field), "one table" (an Embedding
    for all fields), "tbe" (FBGEMM), "torchrec" or "none". The first two update by torch's sparse
    optimisers, dense for "amsgrad"; FBGEMM and torchrec update within the backward pass.
    """
    import torch

    torch.manual_seed(0)
    sizes = inputs.scaled_cardinalities(settings["rows"])
    ids = inputs.id_batches(sizes, settings["batch"])
    tables = _MAKERS[settings["method"]](sizes, ids, settings)
    return {"lookup": _lookup, "step": _step, "train": _train}[task](tables, settings)


class _Tables:
    """Tables in torch.

    Args:
        forward: From an element of `batches` to vectors (B, fields, d).
        batches: The ids of each batch, in the tables' own form.
        parameters: What an optimiser is to update; none where the backward pass does.
    """

    def __init__(self, forward: Callable, batches: list[Any], parameters: list[Any]) -> None:
        self.forward = forward
        self.batches = cycle(batches)
        self.parameters = parameters


def _lookup(tables: _Tables, settings: dict[str, Any]) -> Callable[[], Any]:
    import torch

    def lookup() -> None:
        with torch.no_grad():
            tables.forward(next(tables.batches))

    return lookup


def _step(tables: _Tables, settings: dict[str, Any]) -> Callable[[], Any]:
    import torch

    shape = (settings["batch"], len(inputs.KAGGLE_CARDINALITIES), settings["dim"])
    cotangent = torch.from_numpy(inputs.cotangent(*shape))
    optimizers = _optimizers(tables.parameters, [], settings["optimizer"])

    def step() -> None:
        tables.forward(next(tables.batches)).backward(cotangent)
        _update(optimizers)

    return step


def _train(tables: _Tables, settings: dict[str, Any]) -> Callable[[], Any]:
    import torch

    from tf_compemb.benchmark.engines.torch_dlrm import make_dlrm

    dense = cycle([torch.from_numpy(x) for x in inputs.dense_batches(settings["batch"])])
    labels = cycle([torch.from_numpy(x) for x in inputs.label_batches(settings["batch"])])
    network = make_dlrm(settings["dim"])
    optimizers = _optimizers(tables.parameters, list(network.parameters()), settings["optimizer"])
    cross_entropy = torch.nn.BCEWithLogitsLoss()

    def step() -> None:
        vectors = tables.forward(next(tables.batches))
        cross_entropy(network(next(dense), vectors), next(labels)).backward()
        _update(optimizers)

    return step


def _update(optimizers: list[Any]) -> None:
    for optimizer in optimizers:
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _optimizers(tables: list[Any], network: list[Any], name: str) -> list[Any]:
    """One optimiser for the tables and one for the network, each where there are parameters."""
    import torch

    rate = _RATES[name]
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, rate),
        "adagrad": lambda p: torch.optim.Adagrad(p, rate),
        "lazy_adam": lambda p: torch.optim.SparseAdam(p, rate),
        "amsgrad": lambda p: torch.optim.Adam(p, rate, amsgrad=True),
    }
    found = [makers[name](tables)] if tables else []
    if network:
        of_network = {
            "rowwise_adagrad": makers["adagrad"],
            "lazy_adam": lambda p: torch.optim.Adam(p, rate),
        }
        found.append(of_network.get(name, makers.get(name))(network))  # type: ignore[misc]
    return found


def _is_sparse(settings: dict[str, Any]) -> bool:
    return settings.get("optimizer") != "amsgrad"  # torch has no sparse AMSGrad


def _bags(sizes: list[int], ids: np.ndarray, settings: dict[str, Any]) -> _Tables:
    import torch

    sparse = _is_sparse(settings)
    bags = torch.nn.ModuleList(
        [torch.nn.EmbeddingBag(n, settings["dim"], mode="sum", sparse=sparse) for n in sizes]
    )
    starts = torch.arange(ids.shape[1])

    def forward(columns: list[Any]) -> Any:
        vectors = [bag(c, starts) for bag, c in zip(bags, columns, strict=True)]
        return torch.stack(vectors, dim=1)

    batches = [[torch.from_numpy(c.copy()) for c in batch.T] for batch in ids]
    return _Tables(forward, batches, list(bags.parameters()))


def _one_table(sizes: list[int], ids: np.ndarray, settings: dict[str, Any]) -> _Tables:
    import torch

    table = torch.nn.Embedding(sum(sizes), settings["dim"], sparse=_is_sparse(settings))
    starts = torch.from_numpy(inputs.offsets(sizes))
    batches = [torch.from_numpy(batch) for batch in ids]
    return _Tables(lambda x: table(x + starts), batches, list(table.parameters()))


def _tbe(sizes: list[int], ids: np.ndarray, settings: dict[str, Any]) -> _Tables:
    import torch
    from fbgemm_gpu.split_embedding_configs import EmbOptimType
    from fbgemm_gpu.split_table_batched_embeddings_ops_common import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_training import (
        ComputeDevice,
        SplitTableBatchedEmbeddingBagsCodegen,
    )

    rule = settings.get("optimizer", "sgd")
    dim = settings["dim"]
    tables = SplitTableBatchedEmbeddingBagsCodegen(
        [(n, dim, EmbeddingLocation.HOST, ComputeDevice.CPU) for n in sizes],
        optimizer=getattr(EmbOptimType, f"EXACT_{rule.upper()}"),
        learning_rate=_RATES[rule],
        eps=1e-8,
    )
    for weights in tables.split_embedding_weights():
        torch.nn.init.uniform_(weights, -0.01, 0.01)
    lookups = ids.shape[1] * ids.shape[2]
    starts = torch.arange(lookups + 1)
    # Fields outside, rows inside: the order of FBGEMM's ids.
    batches = [torch.from_numpy(batch.T.reshape(-1).copy()) for batch in ids]
    return _Tables(lambda x: tables(x, starts).view(-1, len(sizes), dim), batches, [])


def _torchrec(sizes: list[int], ids: np.ndarray, settings: dict[str, Any]) -> _Tables:
    import torch
    from torchrec.modules.embedding_configs import EmbeddingBagConfig
    from torchrec.modules.fused_embedding_modules import FusedEmbeddingBagCollection
    from torchrec.optim import RowWiseAdagrad
    from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

    rules = {
        "sgd": torch.optim.SGD,
        "adagrad": torch.optim.Adagrad,
        "rowwise_adagrad": RowWiseAdagrad,
    }
    rule = settings.get("optimizer", "sgd")
    names = [f"field_{i}" for i in range(len(sizes))]
    dim = settings["dim"]
    tables = FusedEmbeddingBagCollection(
        tables=[
            EmbeddingBagConfig(
                name=f"table_{name}", embedding_dim=dim, num_embeddings=n, feature_names=[name]
            )
            for name, n in zip(names, sizes, strict=True)
        ],
        optimizer_type=rules[rule],
        optimizer_kwargs={"lr": _RATES[rule], **({} if rule == "sgd" else {"eps": 1e-8})},
        device=torch.device("cpu"),
    )
    ones = torch.ones(ids.shape[1] * ids.shape[2], dtype=torch.int64)
    batches = [
        KeyedJaggedTensor(names, torch.from_numpy(batch.T.reshape(-1).copy()), lengths=ones)
        for batch in ids
    ]
    return _Tables(lambda x: tables(x).values().view(-1, len(sizes), dim), batches, [])


def _no_tables(sizes: list[int], ids: np.ndarray, settings: dict[str, Any]) -> _Tables:
    import torch

    vectors = torch.randn(settings["batch"], len(sizes), settings["dim"])
    return _Tables(lambda _: vectors, [None], [])


_MAKERS = {
    "bags": _bags,
    "one table": _one_table,
    "tbe": _tbe,
    "torchrec": _torchrec,
    "none": _no_tables,
}
