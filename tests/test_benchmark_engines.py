"""The benchmark compares like with like: every engine makes the same lookup and the same step."""

import os

import numpy as np
import pytest

from tf_compemb._keras import RUNTIME
from tf_compemb.benchmark import inputs

SETTINGS = {"rows": 200, "batch": 16, "dim": 4, "optimizer": "sgd"}
SIZES = inputs.scaled_cardinalities(SETTINGS["rows"])
IDS = inputs.id_batches(SIZES, SETTINGS["batch"])
RATE = 0.1

on_tensorflow = pytest.mark.skipif(
    RUNTIME not in ("tf_keras", "keras3-tensorflow"), reason="the engine runs on TensorFlow"
)


def as_one_table(tables):
    return np.concatenate([np.asarray(table) for table in tables])


def looked_up(table, ids):
    return table[ids + inputs.offsets(SIZES)]


def after_sgd(table, ids):
    """The table after one step, duplicates added, in float64."""
    cotangent = inputs.cotangent(*ids.shape, table.shape[1])
    moved = table.astype(np.float64)
    rows = (ids + inputs.offsets(SIZES)).reshape(-1)
    np.subtract.at(moved, rows, RATE * cotangent.reshape(len(rows), -1))
    return moved


@on_tensorflow
@pytest.mark.parametrize("method", ["full", "stock", "stock one table"])
@pytest.mark.parametrize("stock_optimizer", [False, True])
def test_the_tensorflow_step_is_the_step(method, stock_optimizer):
    from tf_compemb.benchmark.engines.keras_tensorflow import embedding_step, layer_and_ids

    settings = {**SETTINGS, "method": method, "stock_optimizer": stock_optimizer}
    layer, ids = layer_and_ids(settings)  # takes the first batch to build
    before = as_one_table([w.numpy() for w in layer.weights])
    vectors = layer(next(ids)).numpy()
    np.testing.assert_array_equal(vectors, looked_up(before, IDS[1]))
    embedding_step(layer, ids, settings)()  # takes the third to build, trains on the fourth
    after = as_one_table([w.numpy() for w in layer.weights])
    np.testing.assert_allclose(after, after_sgd(before, IDS[3]), rtol=0, atol=1e-7)
    assert np.abs(after - before).max() > 1e-3


@on_tensorflow
@pytest.mark.parametrize("method", ["bare path, fused", "bare path, partitioned"])
def test_the_bare_path_is_its_formula(method):
    from tf_compemb import EmbeddingCollection
    from tf_compemb.benchmark.engines.keras_tensorflow import layer_and_ids

    settings = {**SETTINGS, "rows": 20_000, "method": method}
    sizes = inputs.scaled_cardinalities(settings["rows"])
    layer, ids = layer_and_ids(settings)
    ids = next(ids).numpy()
    base, *networks = (w.numpy() for w in layer.weights)
    ours = EmbeddingCollection(sizes, 4, "path", options={"hidden_units": [64]})
    assert sum(w.size for w in (base, *networks)) == ours.footprint().parameters
    chosen = [f for f, n in enumerate(sizes) if n * 4 > -(-n // 4) * 4 + 4 * (9 * 64 + 4)]
    others = [f for f in range(26) if f not in chosen]
    rows = [-(-n // 4) if f in chosen else n for f, n in enumerate(sizes)]
    found = layer(ids).numpy()
    assert 0 < len(chosen) < 26
    for column, field in enumerate(chosen + others):
        i = ids[3, field]
        z = base[inputs.offsets(rows)[field] + (i // 4 if field in chosen else i)]
        if field in chosen:
            first, first_bias, last, last_bias = (w[column, i % 4] for w in networks)
            z = np.maximum(z @ first + first_bias, 0) @ last + last_bias
        np.testing.assert_allclose(found[3, column], z, rtol=1e-4, atol=1e-6)


@on_tensorflow
def test_the_bare_quotient_remainder_is_its_formula():
    from tf_compemb import EmbeddingCollection
    from tf_compemb.benchmark.engines.keras_tensorflow import layer_and_ids

    settings = {**SETTINGS, "rows": 500, "method": "bare quotient-remainder"}
    sizes = inputs.scaled_cardinalities(settings["rows"])
    layer, ids = layer_and_ids(settings)
    ids = next(ids).numpy()
    layer.remainder.assign(np.random.default_rng(0).normal(size=layer.remainder.shape))
    quotient, remainder = (w.numpy() for w in layer.weights)
    chosen = [-(-n // 4) + 4 < n for n in sizes]
    assert 0 < sum(chosen) < 26
    ours = EmbeddingCollection(sizes, 4, "qr")
    of_ones = remainder[-1].size
    assert quotient.size + remainder.size - of_ones == ours.footprint().parameters
    rows = [-(-n // 4) if c else n for n, c in zip(sizes, chosen, strict=True)]
    found = layer(ids).numpy()
    seen = 0
    for field, i in enumerate(ids[3]):
        z = quotient[sum(rows[:field]) + (i // 4 if chosen[field] else i)]
        row = seen + i % 4 if chosen[field] else -1
        seen += 4 * chosen[field]
        np.testing.assert_allclose(found[3, field], z * remainder[row], rtol=1e-6)


@pytest.mark.parametrize("method", ["bags", "one table", "tbe", "torchrec"])
def test_the_torch_step_is_the_step(method):
    pytest.importorskip("torch")
    if method in ("tbe", "torchrec"):
        pytest.importorskip("fbgemm_gpu")
    if method == "torchrec":
        pytest.importorskip("torchrec")
    from tf_compemb.benchmark.engines import torch_tables

    # Each batch holds every id of each field, so that its vectors are the tables.
    batch = max(SIZES)
    ids = np.stack([np.arange(batch) % n for n in SIZES], axis=1)
    settings = {**SETTINGS, "batch": batch}
    tables = torch_tables._MAKERS[method](SIZES, np.stack([ids, ids]), settings)

    def read():
        vectors = tables.forward(next(tables.batches)).detach().numpy()
        return as_one_table([vectors[:n, i] for i, n in enumerate(SIZES)])

    before = read()
    torch_tables._step(tables, settings)()
    np.testing.assert_allclose(read(), after_sgd(before, ids), rtol=0, atol=2e-6)
    assert np.abs(read() - before).max() > 1e-4


@on_tensorflow
def test_the_networks_are_of_the_same_size():
    from tf_compemb._keras import LEGACY
    from tf_compemb.benchmark.engines.other_layers import no_tables
    from tf_compemb.benchmark.engines.plain_dlrm import plain_dlrm

    if LEGACY:
        pytest.skip("in tf_keras the model is the package's own")
    model = plain_dlrm(no_tables(SIZES, 16, 2))
    model([np.zeros((2, 13), "float32"), np.zeros((2, 26), "int64")])
    assert model.count_params() == 475_985


def test_the_torch_network_is_of_the_same_size():
    torch = pytest.importorskip("torch")
    from tf_compemb.benchmark.engines.torch_dlrm import make_dlrm

    network = make_dlrm(16)
    assert sum(p.numel() for p in network.parameters()) == 475_985
    assert network(torch.zeros(2, 13), torch.zeros(2, 26, 16)).shape == (2, 1)


@pytest.mark.parametrize("task", ["lookup", "step"])
def test_the_limit_gathers_what_a_lookup_gathers(task, monkeypatch):
    from tf_compemb.benchmark.engines import gather_limit

    tables = []
    ones = np.ones

    def numbered(shape, dtype):
        tables.append(np.arange(np.prod(shape), dtype=dtype).reshape(shape))
        return tables[-1]

    monkeypatch.setattr(gather_limit.np, "ones", numbered)
    monkeypatch.setattr(gather_limit, "_fastest_gather", lambda table, flat, out: gathered.append)
    gathered: list = []
    call = gather_limit.prepare(task, {"rows": 200, "batch": 16, "dim": 4})
    monkeypatch.setattr(gather_limit.np, "ones", ones)
    call()
    call()
    for batch, found in zip(IDS, gathered, strict=False):
        np.testing.assert_array_equal(found, (batch + inputs.offsets(SIZES)).reshape(-1))
    assert len(gathered) == 2


def test_every_core_gathers_its_part_of_the_rows():
    from tf_compemb.benchmark.engines.gather_limit import _fastest_gather

    table = np.arange(40, dtype=np.float32).reshape(10, 4)
    ids = np.asarray([9, 0, 3, 3, 7])
    out = np.empty((5, 4), np.float32)
    for _ in range(4):
        _fastest_gather(table, [ids], out)(ids)
        np.testing.assert_array_equal(out, table[ids])
        out[:] = -1


@pytest.mark.skipif(not os.path.exists("/proc/self/status"), reason="Linux only")
@on_tensorflow
def test_resident_bytes_grow_by_what_is_allocated():
    from tf_compemb.benchmark.engines.process_memory import resident_bytes

    before = resident_bytes()
    held = np.ones(50_000_000, np.uint8)
    grown = resident_bytes() - before
    assert abs(grown - held.nbytes) < 5_000_000
