"""Every row optimiser against a NumPy oracle in float64, and what they refuse."""

import numpy as np
import optimizer_oracle as oracle
import pytest
from optimizer_training import apply, apply_slices, make_optimizer, make_table, train

from tf_compemb import optimizers
from tf_compemb._keras import BACKEND, LEGACY, keras, ops

on_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="sparse gradients exist on TensorFlow only"
)
RUNNABLE = [n for n in optimizers.NAMES if BACKEND == "tensorflow" or "lazy" not in n]
CLASSES = ["SGD", "Adagrad", "RowWiseAdagrad", "Adam", "AMSGrad"]
SMALL = oracle.Problem(rows=40, width=4, steps=120, batch=8, seed=3)


@on_tensorflow
@pytest.mark.parametrize("name", optimizers.NAMES)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 3e-5), ("float64", 1e-8)])
def test_sparse_training_is_the_oracle(name, dtype, tolerance):
    # 3e-5: Keras computes Adam's 1 - 0.999^t in the table's type, wrong by 1e-5 at first.
    # 1e-8: Adagrad's initial 0.1 is a float32 number.
    expected = oracle.train(name, SMALL, lambda t: 0.0625)
    got = train(make_optimizer(name, 0.0625), SMALL, dtype)
    np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance)


@pytest.mark.parametrize("name", [n for n in RUNNABLE if "lazy" not in n])
def test_dense_gradients_take_the_same_rule(name):
    expected = oracle.train(name, SMALL, lambda t: 0.0625)
    table = make_table(SMALL.start)
    optimizer = make_optimizer(name, 0.0625)
    optimizer.build([table])
    for step in range(len(SMALL.ids)):
        gradient = SMALL.gradient(np.asarray(ops.convert_to_numpy(table)), step)
        apply(optimizer, [ops.convert_to_tensor(gradient, "float32")], [table])
    np.testing.assert_allclose(ops.convert_to_numpy(table), expected, rtol=0, atol=3e-5)


@on_tensorflow
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_dense_weights_and_tables_train_together(name):
    # A weight that is no table, beside a table: each as if it were alone, under the dense rule.
    weight, table = make_table(np.ones((3, 2)), by_rows=False), make_table(np.ones((5, 2)))
    optimizer, alone = make_optimizer(name, 0.5), make_optimizer(name, 0.5)
    lone_weight = make_table(np.ones((3, 2)), by_rows=False)
    optimizer.build([weight, table])
    alone.build([lone_weight])
    import tensorflow as tf

    for _ in range(2):
        gradient = tf.constant([[1.0, 2.0], [0.0, 0.0], [-1.0, 3.0]])
        slices = tf.IndexedSlices(tf.ones((1, 2)), tf.constant([1]), (5, 2))
        apply(optimizer, [gradient, slices], [weight, table])
        apply(alone, [gradient], [lone_weight])
    np.testing.assert_array_equal(weight.numpy(), lone_weight.numpy())
    assert np.all(table.numpy()[1] < 1)
    assert np.all(table.numpy()[[0, 2, 3, 4]] == 1)


@on_tensorflow
@pytest.mark.parametrize(
    ("name", "moved"),
    [
        ("sgd", 0.3),  # 0.1 * 3
        ("adagrad", 0.3 / np.sqrt(9.1)),  # 0.0994...: the sum's square, not the squares' sum
        ("rowwise_adagrad", 0.3 / np.sqrt(9.1)),
        ("adam", 0.1),  # the first step of Adam is the learning rate
        ("amsgrad", 0.1),
        ("lazy_adam", 0.1),
        ("lazy_amsgrad", 0.1),
    ],
)
def test_three_duplicates_count_as_their_sum(name, moved):
    table = make_table(np.zeros((4, 2)))
    apply_slices(make_optimizer(name, 0.1), table, [2, 2, 2], np.ones((3, 2)))
    expected = np.zeros((4, 2))
    expected[2] = -moved
    np.testing.assert_allclose(table.numpy(), expected, rtol=1e-5)


@on_tensorflow
def test_adagrad_squares_the_sum_of_duplicates():
    # 0.1 * 1.5 / sqrt(0.1 + 1.5^2) = 0.0978; with 3 * 0.5^2 under the root it would be 0.1627.
    table = make_table(np.zeros((1, 1)))
    apply_slices(make_optimizer("adagrad", 0.1), table, [0, 0, 0], [[0.5], [0.5], [0.5]])
    assert table.numpy()[0, 0] == pytest.approx(-0.15 / np.sqrt(2.35), rel=1e-6)


@on_tensorflow
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_rows_outside_the_batch_are_not_written(name):
    table = make_table(np.full((1000, 2), 0.25))
    apply_slices(make_optimizer(name), table, [3, 998], [[1.0, -1.0], [2.0, 2.0]])
    assert set(np.flatnonzero(np.any(table.numpy() != 0.25, axis=1))) == {3, 998}


@on_tensorflow
@pytest.mark.parametrize("name", ["adagrad", "amsgrad"])
@pytest.mark.parametrize(
    ("clipping", "clip"),
    [
        ({"clipnorm": 0.5}, lambda g: g * min(1, 0.5 / np.linalg.norm(g))),
        ({"global_clipnorm": 0.5}, lambda g: g * min(1, 0.5 / np.linalg.norm(g))),
        ({"clipvalue": 0.2}, lambda g: np.clip(g, -0.2, 0.2)),
    ],
)
def test_clipping_sees_the_merged_gradient(name, clipping, clip):
    expected = oracle.train(name, SMALL, lambda t: 0.0625, clip)
    got = train(make_optimizer(name, 0.0625, **clipping), SMALL, "float64")
    np.testing.assert_allclose(got, expected, rtol=0, atol=1e-7)


@on_tensorflow
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_schedules(name):
    schedule = keras.optimizers.schedules.InverseTimeDecay(0.0625, 10, 0.5)
    expected = oracle.train(name, SMALL, lambda t: 0.0625 / (1 + 0.5 * (t - 1) / 10))
    got = train(make_optimizer(name, schedule), SMALL, "float64")
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-7)


@pytest.mark.parametrize("name", RUNNABLE)
def test_config_round_trip(name):
    optimizer = make_optimizer(name, 0.25, clipnorm=2.0)
    config = keras.optimizers.serialize(optimizer)
    assert config["registered_name"] == f"tf_compemb>{type(optimizer).__name__}"
    again = keras.optimizers.deserialize(config)
    assert type(again) is type(optimizer)
    assert again.get_config() == optimizer.get_config()
    assert again.clipnorm == 2.0


@pytest.mark.parametrize("name", RUNNABLE)
@pytest.mark.parametrize("option", [{"weight_decay": 0.01}, {"use_ema": True}])
def test_options_that_visit_whole_tables_are_refused(name, option):
    with pytest.raises(ValueError, match=f"does not take {next(iter(option))}"):
        make_optimizer(name, **option)


@pytest.mark.skipif(LEGACY, reason="tf_keras has neither option")
@pytest.mark.parametrize(
    ("option", "advice"),
    [
        ({"gradient_accumulation_steps": 2}, "gradient_accumulation_steps=2: .* larger batch"),
        ({"loss_scale_factor": 8.0}, r"loss_scale_factor=8\.0: .* Use LossScaleOptimizer"),
    ],
)
def test_options_of_keras_3_that_sparse_gradients_cannot_have_are_refused(option, advice):
    with pytest.raises(ValueError, match=advice):
        make_optimizer("adagrad", **option)


def test_momentum_is_refused():
    with pytest.raises(ValueError, match=r"SGD takes no momentum \(received momentum=0.9"):
        optimizers.SGD(0.1, momentum=0.9)


def test_a_constraint_on_a_table_is_refused():
    table = make_table(np.zeros((4, 2)))
    table._constraint = keras.constraints.NonNeg()
    with pytest.raises(ValueError, match="has a constraint"):
        make_optimizer("adagrad").build([table])


@on_tensorflow
@pytest.mark.parametrize("name", ["adam", "lazy_amsgrad"])
def test_adam_refuses_tables_too_narrow_for_its_moments(name):
    table = make_table(np.zeros((4, 2)), "bfloat16")
    with pytest.raises(ValueError, match=r"of type bfloat16.*Train a float32 table"):
        make_optimizer(name).build([table])


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow has sparse gradients")
def test_lazy_adam_says_what_it_needs():
    with pytest.raises(RuntimeError, match="LazyAdam needs TensorFlow"):
        make_optimizer("lazy_adam")


def test_an_unknown_name_is_refused():
    with pytest.raises(ValueError, match=r"Unknown optimizer 'adamw'\. Use one of: sgd, adagrad"):
        make_optimizer("adamw")


def test_a_schedule_is_not_warmed_up():
    from tf_compemb._keras import keras

    falling = keras.optimizers.schedules.InverseTimeDecay(0.1, 10, 0.5)
    with pytest.raises(ValueError, match="needs a `learning_rate` that is a number"):
        optimizers.get("adagrad", falling, warmup_steps=20)


@on_tensorflow
@pytest.mark.parametrize("name", optimizers.NAMES)
def test_state_is_what_slots_per_parameter_says(name):
    rows, width = 50, 8
    table = make_table(np.zeros((rows, width)))
    optimizer = make_optimizer(name)
    optimizer.build([table])
    state = [v for v in optimizer.variables if len(v.shape) and v.shape[0] in (rows, rows + 1)]
    floats = sum(int(np.prod(v.shape)) for v in state)
    # Exact Adam and AMSGrad keep the table's step number in one row more.
    kept = rows + (BACKEND == "tensorflow" and name in ("adam", "amsgrad"))
    assert floats == optimizers.slots_per_parameter(name, width) * kept * width
    assert all(v.numpy().dtype == np.float32 for v in state)


def test_names_are_listed_without_keras():
    import subprocess
    import sys

    check = "import sys, tf_compemb.optimizers as o; o.NAMES; sys.exit('keras' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", check], check=False).returncode == 0
