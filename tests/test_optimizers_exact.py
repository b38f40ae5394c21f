"""Adam and AMSGrad on rows are the dense rule: whatever was idle, whenever it is looked at."""

import numpy as np
import optimizer_oracle as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optimizer_training import (
    apply,
    apply_slices,
    make_optimizer,
    make_step,
    make_table,
    raw,
    read,
    stored_rows,
    train,
    train_range,
)

from tf_compemb import optimizers
from tf_compemb._keras import BACKEND, keras
from tf_compemb.optimizers.idle_series import idle_weights
from tf_compemb.storage.table_rows import table_of

if BACKEND != "tensorflow":
    pytest.skip("updates are deferred on TensorFlow only", allow_module_level=True)

import tensorflow as tf

from tf_compemb.optimizers import deferred_update

EXACT = ["adam", "amsgrad"]
LONG = oracle.Problem(rows=60, width=4, steps=1000, batch=8, seed=5)
SHORT = oracle.Problem(rows=60, width=4, steps=90, batch=6, seed=6)


def dense_training(name, problem, rate, dtype):
    """The stock dense optimiser of the runtime, on the same problem."""
    table = make_table(problem.start, dtype, by_rows=False)
    optimizer = keras.optimizers.Adam(rate, amsgrad=name == "amsgrad")
    optimizer.build([table])

    @tf.function
    def step(gradient):
        apply(optimizer, [gradient], [table])

    for t in range(len(problem.ids)):
        step(tf.constant(problem.gradient(table.numpy(), t), dtype))
    return table.numpy()


@pytest.mark.parametrize("name", EXACT)
def test_a_thousand_steps_of_a_schedule_are_the_dense_rule(name):
    schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 200, 0.5)
    got = train(make_optimizer(name, schedule), LONG, "float64")
    stock = dense_training(name, LONG, schedule, "float64")
    np.testing.assert_allclose(got, stock, rtol=1e-8)
    lazy = train(make_optimizer(f"lazy_{name}", schedule), LONG, "float64")
    assert np.abs(lazy - stock).mean() > 1e-2  # idle rows do move


@pytest.mark.parametrize("name", EXACT)
def test_a_thousand_steps_in_float32(name):
    got = train(make_optimizer(name, 0.001), LONG, "float32")
    stock = dense_training(name, LONG, 0.001, "float32")
    exact = dense_training(name, LONG, 0.001, "float64")
    # The stock rule rounds an idle row at every step, ours once: it is the nearer to float64.
    assert np.abs(got - exact).max() < 1e-6 * np.abs(exact).max()
    assert np.abs(got - exact).max() < np.abs(stock - exact).max()


@pytest.mark.parametrize("name", EXACT)
def test_a_learning_rate_set_by_hand_between_steps(name):
    optimizer, table = make_optimizer(name, 0.01), make_table(SHORT.start, "float64")
    optimizer.build([table])
    step = make_step(optimizer, table, SHORT.target)
    for t in range(len(SHORT.ids)):
        optimizer.learning_rate = 0.01 if t % 3 else 0.0001
        step(tf.constant(SHORT.ids[t]), tf.constant(SHORT.noise[t]))
    optimizer.materialize_rows()

    def rate(t):
        return np.float32(0.01) if (t - 1) % 3 else np.float32(0.0001)

    np.testing.assert_allclose(table.numpy(), oracle.train(name, SHORT, rate), rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", EXACT)
def test_reading_shows_the_dense_rows_and_writes_nothing(name):
    optimizer, table = make_optimizer(name, 0.01), make_table(SHORT.start, "float64")
    optimizer.build([table])
    train_range(optimizer, table, SHORT, range(90))
    stored = stored_rows(table).numpy()
    seen = read(table, tf.range(60).numpy()).numpy()
    np.testing.assert_array_equal(stored_rows(table).numpy(), stored)
    expected = oracle.train(name, SHORT, lambda t: np.float32(0.01))
    np.testing.assert_allclose(seen, expected, rtol=0, atol=1e-8)
    assert np.abs(stored - expected).max() > 1e-3
    np.testing.assert_allclose(table.numpy(), seen, rtol=1e-12)
    np.testing.assert_array_equal(stored_rows(table).numpy(), table.numpy())
    np.testing.assert_array_equal(read(table, np.arange(60)).numpy(), table.numpy())


def test_materializing_in_the_middle_changes_rounding_only():
    optimizer, table = make_optimizer("amsgrad", 0.01), make_table(SHORT.start, "float64")
    optimizer.build([table])
    step = make_step(optimizer, table, SHORT.target)
    for t in range(90):
        step(tf.constant(SHORT.ids[t]), tf.constant(SHORT.noise[t]))
        if t % 20 == 7:
            optimizer.materialize_rows()
    optimizer.materialize_rows()
    untouched = train(make_optimizer("amsgrad", 0.01), SHORT, "float64")
    np.testing.assert_allclose(table.numpy(), untouched, rtol=1e-9)


@pytest.mark.parametrize("name", EXACT)
def test_history_wraps_around_and_every_row_is_visited(name, monkeypatch):
    # 90 steps in a history of 30: unless each row has its turn every 15 steps, the sums of rows
    # that are idle for longer are overwritten.
    monkeypatch.setattr(deferred_update, "LONGEST_ROUND", 16)
    optimizer = make_optimizer(name, 0.01, beta_1=0.2)
    assert len(optimizer.rule.idle_weights()) < 30
    got = train(optimizer, SHORT, "float64")
    monkeypatch.setattr(oracle.Adam, "b1", 0.2)
    expected = oracle.train(name, SHORT, lambda t: np.float32(0.01))
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-8)


@given(table_rows=st.integers(1, 3000), longest=st.integers(1, 64), first=st.integers(0, 10**6))
@settings(max_examples=60, deadline=None)
def test_every_row_has_its_turn_in_every_round(table_rows, longest, first):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deferred_update, "LONGEST_ROUND", longest)
        turns = deferred_update.Turns(table_rows)
        assert turns.steps <= longest
        history = 2 * turns.steps  # Steps are known modulo so many.
        visited = {
            int(row)
            for step in range(first, first + turns.steps)
            for row in turns.at(tf.constant(step % history)).numpy()
        }
    assert visited == set(range(table_rows))


@pytest.mark.parametrize(
    ("table_rows", "rows_a_step", "steps"),
    [(1, 1, 1), (60, 1, 60), (2049, 3, 683), (100_000, 16, 6250), (10_000_000, 306, 32_680)],
)
def test_lengths_of_rounds(table_rows, rows_a_step, steps):
    turns = deferred_update.Turns(table_rows)
    assert (turns.rows_a_step, turns.steps) == (rows_a_step, steps)


def test_a_dense_gradient_for_a_table_moves_all_rows():
    # Sparse and dense steps by turns, as when a small table is also read by a matrix product.
    optimizer, table = make_optimizer("amsgrad", 0.01), make_table(SHORT.start, "float64")
    optimizer.build([table])
    for t in range(90):
        rows = tf.range(60)
        gradient = SHORT.gradient(read(table, rows).numpy(), t)
        if t % 2:
            apply(optimizer, [tf.constant(gradient)], [table])
        else:
            ids = np.unique(SHORT.ids[t])
            apply_slices(optimizer, table, ids, gradient[ids])
    optimizer.materialize_rows()
    expected = oracle.train("amsgrad", SHORT, lambda t: np.float32(0.01))
    np.testing.assert_allclose(table.numpy(), expected, rtol=0, atol=1e-8)


def test_a_sparse_gradient_for_no_table_is_made_dense():
    table = make_table(SHORT.start, "float64", by_rows=False)
    optimizer = make_optimizer("amsgrad", 0.01)
    for t in range(90):
        ids = SHORT.ids[t]
        rows = table.numpy()[ids]
        values = oracle.PULL * (rows - SHORT.target[ids]) + SHORT.noise[t]
        apply_slices(optimizer, table, ids, values)
    expected = oracle.train("amsgrad", SHORT, lambda t: np.float32(0.01))
    np.testing.assert_allclose(table.numpy(), expected, rtol=0, atol=1e-8)


@pytest.mark.parametrize("name", optimizers.NAMES)
def test_a_restored_run_continues_bit_for_bit(name, tmp_path):
    def fresh():
        optimizer, table = make_optimizer(name, 0.01), make_table(SHORT.start)
        optimizer.build([table])
        return optimizer, table, tf.train.Checkpoint(table=raw(table), optimizer=optimizer)

    optimizer, table, checkpoint = fresh()
    train_range(optimizer, table, SHORT, range(40))
    path = checkpoint.save(tmp_path / "half")
    train_range(optimizer, table, SHORT, range(40, 90))

    restored_optimizer, restored, checkpoint = fresh()
    checkpoint.restore(path).assert_existing_objects_matched()
    train_range(restored_optimizer, restored, SHORT, range(40, 90))
    np.testing.assert_array_equal(restored.numpy(), table.numpy())
    for a, b in zip(restored_optimizer.variables, optimizer.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    assert int(restored_optimizer.iterations) == 90


def test_an_optimizer_that_is_built_while_the_step_is_traced_is_exact():
    optimizer, table = make_optimizer("amsgrad", 0.01), make_table(SHORT.start, "float64")
    train_range(optimizer, table, SHORT, range(90))
    expected = oracle.train("amsgrad", SHORT, lambda t: np.float32(0.01))
    np.testing.assert_allclose(table.numpy(), expected, rtol=0, atol=1e-8)


def test_a_graph_from_before_the_optimizer_reads_current_rows():
    table = make_table(SHORT.start, "float64")

    @tf.function
    def look():
        return read(table, tf.range(60))

    look()
    optimizer = make_optimizer("amsgrad", 0.01)
    with pytest.warns(UserWarning, match=r"look.* was traced before the optimizer"):
        optimizer.build([table])
    train_range(optimizer, table, SHORT, range(90))
    expected = oracle.train("amsgrad", SHORT, lambda t: np.float32(0.01))
    np.testing.assert_allclose(look().numpy(), expected, rtol=0, atol=1e-8)


def test_a_function_that_is_traced_again_reads_current_rows():
    table = make_table(SHORT.start, "float64")

    @tf.function
    def look(ids):
        return read(table, ids)

    look(tf.constant([1, 2, 3]))
    optimizer = make_optimizer("amsgrad", 0.01)
    look(tf.range(60))  # A second trace, which may make no variables.
    with pytest.warns(UserWarning, match=r"look.* was traced before the optimizer"):
        optimizer.build([table])
    deferred = table_of(table)._deferred[0]
    deferred.stays_current = False  # So that the second trace's own correction is seen.
    train_range(optimizer, table, SHORT, range(90))
    expected = oracle.train("amsgrad", SHORT, lambda t: np.float32(0.01))
    np.testing.assert_allclose(look(tf.range(60)).numpy(), expected, rtol=0, atol=1e-8)
    assert np.abs(stored_rows(table).numpy() - expected).max() > 1e-3


def test_another_optimizer_takes_the_table_over_up_to_date():
    first, table = make_optimizer("amsgrad", 0.01), make_table(SHORT.start, "float64")
    first.build([table])
    train_range(first, table, SHORT, range(90))
    assert table_of(table).is_deferred
    del first
    make_optimizer("adagrad").build([table])
    assert not table_of(table).is_deferred
    expected = oracle.train("amsgrad", SHORT, lambda t: np.float32(0.01))
    np.testing.assert_allclose(stored_rows(table).numpy(), expected, rtol=0, atol=1e-8)


def test_two_optimizers_by_turns_are_the_dense_rules_by_turns():
    table = make_table(SHORT.start, "float64")
    dense = make_table(SHORT.start, "float64", by_rows=False)
    exact = [make_optimizer("amsgrad", 0.01), make_optimizer("adam", 0.02)]
    stock = [keras.optimizers.Adam(0.01, amsgrad=True), keras.optimizers.Adam(0.02)]
    steps = []
    for optimizer in exact:
        optimizer.build([table])
        steps.append(make_step(optimizer, table, SHORT.target))
    for optimizer in stock:
        optimizer.build([dense])
    for t in range(90):
        apply(stock[t // 7 % 2], [tf.constant(SHORT.gradient(dense.numpy(), t))], [dense])
        steps[t // 7 % 2](tf.constant(SHORT.ids[t]), tf.constant(SHORT.noise[t]))
    np.testing.assert_allclose(table.numpy(), dense.numpy(), rtol=0, atol=1e-8)


def test_detached_tables_are_plain_and_up_to_date():
    optimizer, table = make_optimizer("amsgrad", 0.01), make_table(SHORT.start, "float64")
    optimizer.build([table])
    train_range(optimizer, table, SHORT, range(90))
    with optimizer.detached():
        assert not table_of(table).is_deferred
        expected = oracle.train("amsgrad", SHORT, lambda t: np.float32(0.01))
        np.testing.assert_allclose(stored_rows(table).numpy(), expected, rtol=0, atol=1e-8)
    assert table_of(table).is_deferred


@settings(max_examples=40, deadline=None)
@given(
    beta_1=st.floats(0.0, 0.9),
    beta_2=st.floats(0.99, 0.9999),
    root=st.floats(1e-12, 1e3),
    idle=st.integers(0, 2000),
    amsgrad=st.booleans(),
    seed=st.integers(0, 99),
)
def test_the_series_is_the_sum_of_the_missed_steps(beta_1, beta_2, root, idle, amsgrad, seed):
    sizes = np.random.default_rng(seed).uniform(0.0, 1.0, size=idle)
    steps = np.arange(1, idle + 1)
    roots = root if amsgrad else root * np.sqrt(beta_2) ** steps
    expected = np.sum(sizes * beta_1**steps / (roots + 1e-7))
    weights = idle_weights(beta_1, beta_2, amsgrad)
    used = min(idle, len(weights))
    sums = sizes[:used] @ weights[:used]
    share = root / (root + 1e-7)
    got = np.sum(sums * share ** np.arange(len(sums))) / (root + 1e-7)
    np.testing.assert_allclose(got, expected, rtol=1e-8, atol=1e-300)


def test_amsgrad_weights_are_the_powers_of_beta_1():
    weights = idle_weights(0.5, 0.9, amsgrad=True)
    np.testing.assert_array_equal(weights[:, 0], 0.5 ** np.arange(1, len(weights) + 1))
    assert weights.shape == (50, 1)  # 0.5^50 = 9e-16
    assert idle_weights(0.0, 0.999, amsgrad=False).tolist() == [[0.0]]


@pytest.mark.parametrize(("beta_1", "beta_2"), [(0.9, 0.5), (0.9, 0.9), (0.9, 0.98), (0.9, 0.0)])
def test_betas_without_a_short_series_are_refused(beta_1, beta_2):
    with pytest.raises(ValueError, match=f"beta_1={beta_1} and beta_2={beta_2} leave exact Adam"):
        optimizers.Adam(beta_1=beta_1, beta_2=beta_2)
    assert optimizers.AMSGrad(beta_1=beta_1, beta_2=beta_2).beta_2 == beta_2
