"""The order of rows, resuming in the middle, and what tf.data hands to a model."""

import subprocess
import sys

import numpy as np
import pytest
from criteo_rows import random_lines, write_lines
from hypothesis import given, settings
from hypothesis import strategies as st

from tf_compemb.data import prepare
from tf_compemb.data.batch_order import RowOrder
from tf_compemb.data.batch_reader import BatchReader
from tf_compemb.data.criteo_format import record_dtype


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("batches")
    return prepare(write_lines(folder / "raw.txt", random_lines(1200)), folder / "out")


def as_numpy(batches):
    return [
        (features["dense"].numpy(), features["categorical"].numpy(), label.numpy())
        for features, label in batches
    ]


def assert_equal_batches(first, second):
    assert len(first) == len(second)
    for one, two in zip(first, second, strict=True):
        for a, b in zip(one, two, strict=True):
            np.testing.assert_array_equal(a, b)


ORDERS = {
    "rows": st.integers(0, 400),
    "seed": st.none() | st.integers(0, 2**40),
    "epoch": st.integers(0, 5),
    "block_rows": st.integers(1, 9),
    "window_blocks": st.integers(1, 9),
}


@given(**ORDERS)
def test_the_order_is_a_permutation(**arguments):
    order = RowOrder(**arguments).rows_from(0)
    assert sorted(order) == list(range(arguments["rows"]))
    if arguments["seed"] is None:
        assert order.tolist() == list(range(arguments["rows"]))


@given(first=st.integers(0, 400), **ORDERS)
def test_starting_in_the_middle_gives_the_tail(first, **arguments):
    order = RowOrder(**arguments)
    np.testing.assert_array_equal(order.rows_from(first), order.rows_from(0)[first:])


def test_the_order_is_fixed_for_ever():
    order = RowOrder(rows=8, seed=3, epoch=1, block_rows=2, window_blocks=2)
    assert order.rows_from(0).tolist() == [7, 6, 1, 0, 5, 3, 2, 4]


def test_windows_hold_whole_blocks_in_bounded_memory():
    order = RowOrder(rows=10_007, seed=1, block_rows=16, window_blocks=8)
    for window in order.windows():
        assert sum(stop - start for start, stop in window.ranges) <= 16 * 8
        assert all(start % 16 == 0 for start, _ in window.ranges)
        assert {stop - start for start, stop in window.ranges} <= {16, 10_007 % 16}


def test_seeds_and_epochs_have_their_own_orders_that_mix_well():
    orders = [
        RowOrder(rows=100_000, seed=seed, epoch=epoch).rows_from(0)
        for seed, epoch in [(0, 0), (0, 1), (1, 0)]
    ]
    for i in range(3):
        assert np.count_nonzero(orders[i] == orders[i - 1]) < 20  # 1 expected
        # Of a random order neighbours are adjacent rows in 2 of 100,000 cases; a rest of block
        # order would show as about 1 in 65,536 / 2.
        assert np.count_nonzero(np.abs(np.diff(orders[i])) == 1) < 50
        # The first batch of 2048 comes from all over the first window's blocks.
        assert len(np.unique(orders[i][:2048] // 256)) > 200


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 300),
    batch_size=st.integers(1, 80),
    seed=st.none() | st.integers(0, 99),
    drop=st.booleans(),
    per_call=st.integers(1, 200),
    data=st.data(),
)
def test_stacks_of_batches_cut_the_order_exactly(
    tmp_path_factory, rows, batch_size, seed, drop, per_call, data
):
    dtype = record_dtype("int32")
    records = np.zeros(rows + 5, dtype)
    records["label"] = np.arange(rows + 5) - 5  # the split begins at record 5
    path = tmp_path_factory.mktemp("stacks") / "rows.bin"
    records.tofile(path)
    order = RowOrder(rows, seed, 0, block_rows=7, window_blocks=5)
    steps = rows // batch_size if drop else -(-rows // batch_size)
    start = data.draw(st.integers(0, steps))
    reader = BatchReader(path, dtype, 5, order, batch_size, steps)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tf_compemb.data.batch_reader.ROWS_A_CALL", per_call)
        batches = [batch[:, 0] for _, labels in reader.stacks(start) for batch in labels]
    expected = order.rows_from(0)[start * batch_size : steps * batch_size]
    cuts = range(batch_size, len(expected), batch_size)
    expected_batches = np.split(expected, cuts) if len(expected) else []
    assert [batch.tolist() for batch in batches] == [part.tolist() for part in expected_batches]


def test_batches_in_the_order_of_time(dataset):
    batches = as_numpy(dataset.batches("validation", 32))
    features, label = dataset.arrays("validation")
    assert [len(batch[2]) for batch in batches] == [32, 32, 22]
    np.testing.assert_array_equal(np.concatenate([b[0] for b in batches]), features["dense"])
    np.testing.assert_array_equal(np.concatenate([b[1] for b in batches]), features["categorical"])
    np.testing.assert_array_equal(np.concatenate([b[2] for b in batches]), label)


@pytest.mark.parametrize("step", [0, 1, 7, 32, 33])
def test_resuming_gives_the_same_batches(dataset, step):
    options = {"shuffle_seed": 5, "epoch": 2}
    whole = as_numpy(dataset.batches("train", 32, **options))
    assert len(whole) == dataset.steps("train", 32) == 33
    resumed = dataset.batches("train", 32, start_step=step, **options)
    assert int(resumed.cardinality()) == 33 - step
    assert_equal_batches(as_numpy(resumed), whole[step:])


def test_shuffling_keeps_rows_together(dataset):
    features, label = dataset.arrays("train")
    batches = as_numpy(dataset.batches("train", 100, shuffle_seed=1))
    order = RowOrder(1028, 1).rows_from(0)
    np.testing.assert_array_equal(np.concatenate([b[2] for b in batches]), label[order])
    np.testing.assert_array_equal(
        np.concatenate([b[1] for b in batches]), features["categorical"][order]
    )


def test_shapes_and_types(dataset):
    import tensorflow as tf

    features, label = dataset.batches("train", 32).element_spec
    assert features["dense"] == tf.TensorSpec((None, 13), tf.float32)
    assert features["categorical"] == tf.TensorSpec((None, 26), tf.int64)
    assert label == tf.TensorSpec((None, 1), tf.float32)
    full = dataset.batches("train", 1000, drop_remainder=True)
    assert full.element_spec[1] == tf.TensorSpec((1000, 1), tf.float32)
    assert int(full.cardinality()) == dataset.steps("train", 1000, drop_remainder=True) == 1
    assert [len(batch[2]) for batch in as_numpy(full)] == [1000]


def test_an_empty_split_has_no_batches(tmp_path):
    one = prepare(write_lines(tmp_path / "raw.txt", random_lines(1)), tmp_path / "out")
    assert as_numpy(one.batches("train", 4, shuffle_seed=0)) == []
    assert [len(batch[2]) for batch in as_numpy(one.batches("test", 4, shuffle_seed=0))] == [1]


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("training", 4), "`split` must be one of"),
        (("train", 0), "`batch_size` must be at least 1"),
        (("train", 32, {"start_step": 34}), "`start_step` must be from 0 to 33"),
        (("train", 32, {"shuffle_seed": -1}), "`seed` must not be negative"),
    ],
)
def test_wrong_arguments(dataset, arguments, reason):
    positional = [a for a in arguments if not isinstance(a, dict)]
    named = next((a for a in arguments if isinstance(a, dict)), {})
    with pytest.raises(ValueError, match=reason):
        dataset.batches(*positional, **named)


TWO_REPLICAS = """
import sys
import numpy as np, tensorflow as tf
from tf_compemb.data import PreparedDataset
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
data = PreparedDataset(sys.argv[1])
whole = [label.numpy() for _, label in data.batches("train", 100, shuffle_seed=4)]
parts = strategy.experimental_distribute_dataset(data.batches("train", 100, shuffle_seed=4))
seen = [strategy.experimental_local_results(label) for _, label in parts]
assert [len(part) for part in seen[0]] == [50, 50], seen[0]
for batch, replicas in zip(whole, seen, strict=True):
    np.testing.assert_array_equal(batch, np.concatenate(replicas))
print("same")
"""


def test_a_batch_is_shared_out_among_replicas(dataset):
    done = subprocess.run(
        [sys.executable, "-c", TWO_REPLICAS, str(dataset.path)], capture_output=True, text=True
    )
    assert done.stdout == "same\n", done.stderr


def test_help_imports_nothing_heavy():
    code = (
        "import sys\nfrom tf_compemb.data.__main__ import main\n"
        "try: main(['prepare', '--help'])\nexcept SystemExit: pass\n"
        "print(sorted({'numpy', 'pyarrow', 'rich', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
