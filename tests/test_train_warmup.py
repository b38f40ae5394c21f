"""The learning rate's first steps, and what they do to DLRM."""

import numpy as np
import pytest
from training_program import needs_tf_keras

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

import tensorflow as tf

from tf_compemb._keras import keras
from tf_compemb.optimizers.names import DEFAULT_LEARNING_RATES
from tf_compemb.training import build
from tf_compemb.training.options import TrainingOptions

ROWS, FIELDS = 2048, 26


def rates(options, steps):
    optimizer = build.build_optimizer(options)
    weight = tf.Variable(0.0)
    optimizer.build([weight])
    found = []
    for _ in range(steps):
        optimizer.apply_gradients([(tf.constant(1.0), weight)])
        found.append(float(optimizer.learning_rate.numpy()))  # That of the step just taken.
    return found


def test_the_rate_grows_in_equal_parts():
    found = rates(TrainingOptions(learning_rate=0.8, warmup_steps=4), 7)
    assert found == pytest.approx([0.2, 0.35, 0.5, 0.65, 0.8, 0.8, 0.8])


@pytest.mark.parametrize("name", DEFAULT_LEARNING_RATES)
def test_only_adagrads_warm_up_unless_asked(name):
    first, second = rates(TrainingOptions(optimizer=name, learning_rate=0.5), 2)
    expected = (0.005, 0.00995) if "adagrad" in name else (0.5, 0.5)
    assert (first, second) == pytest.approx(expected, rel=1e-5)
    assert rates(TrainingOptions(optimizer=name, warmup_steps=0, learning_rate=0.5), 1) == [0.5]


def losses(seed, **options):
    """Of a batch before Adagrad's first step on it and after, in a DLRM of the paper's widths."""
    keras.utils.set_random_seed(seed)
    rng = np.random.default_rng(seed)
    options = TrainingOptions(batch_size=ROWS, **options)
    model = build.build_model(options, build.build_collection(options, [1000] * FIELDS))
    model.build_on_one_row()
    model.compile(build.build_optimizer(options))
    features = {
        "dense": np.log1p(rng.lognormal(2.0, 1.5, (ROWS, 13))).astype("float32"),
        "categorical": rng.integers(0, 1000, (ROWS, FIELDS)),
    }
    labels = (rng.random((ROWS, 1)) < 0.25).astype("float32")
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    before = float(loss(labels, model(features)))
    model.train_on_batch(features, labels)
    return before, float(loss(labels, model(features)))


@pytest.mark.parametrize("seed", [0, 1])
def test_adagrads_first_step_does_no_harm(seed):
    # It moves each weight by the rate, whatever its gradient: all at once that throws the network
    # far off, and its ReLU units may never come back.
    before, after = losses(seed, warmup_steps=0)
    assert after > 2 * before
    before, after = losses(seed)
    assert after < before
