"""CAFE: the sketch against its own rules taken one id at a time, promotion, resume, export."""

import json
import subprocess
import sys

import numpy as np
import pytest
from runtime import randomize, to_numpy, weights_by_name

from tf_compemb import CAFEEmbedding, HashEmbedding
from tf_compemb._keras import BACKEND, LEGACY, keras

needs_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow", reason="the sketch follows gradients under TensorFlow only"
)


class PlainSketch:
    """The same rules, one id after the other, in lists and dictionaries.

    A slot is [id, score, row]; the row is None for an id without one.
    """

    def __init__(self, buckets, slots, rows, threshold, decay):
        self.buckets = [[] for _ in range(buckets)]
        self.slots, self.threshold, self.decay = slots, threshold, decay
        self.free = list(range(rows))[::-1]
        self.mass = np.float32(0)
        self.promoted = []

    def update(self, ids, importance):
        merged = {}
        for i, g in zip(ids, importance, strict=True):
            merged[int(i)] = merged.get(int(i), np.float32(0)) + np.float32(g)
        # First the first id of each bucket, then the second: this decides who is given which row.
        turns, seen = [], {}
        for i in merged:
            seen[i % len(self.buckets)] = seen.get(i % len(self.buckets), 0) + 1
            turns.append(seen[i % len(self.buckets)])
        for _, i in sorted(zip(turns, merged, strict=True), key=lambda pair: pair[0]):
            self.take_in(i, merged[i])
        self.mass += np.float32(sum(merged.values()))
        if self.mass > 10 * len(self.buckets) * self.threshold:
            for bucket in self.buckets:
                for slot in bucket:
                    slot[1] = np.float32(slot[1] * np.float32(self.decay))
                    if slot[2] is not None and slot[1] < self.threshold:
                        self.free.append(slot[2])
                        slot[2] = None
            self.mass = np.float32(0)

    def take_in(self, i, g):
        bucket = self.buckets[i % len(self.buckets)]
        own = next((slot for slot in bucket if slot[0] == i), None)
        if own is not None:
            own[1] = np.float32(own[1] + g)
            if own[2] is None and own[1] >= self.threshold and self.free:
                own[2] = self.free.pop()
                self.promoted.append((i, own[2]))
        elif len(bucket) < self.slots:
            bucket.append([i, g, None])
        elif bucket[-1][2] is None:
            bucket[-1] = [i, np.float32(bucket[-1][1] + g), None]
        bucket.sort(key=lambda slot: -slot[1])


def tensor_sketch(buckets, slots, rows, threshold, decay=0.99):
    import tensorflow as tf

    from tf_compemb.layers.hashing._hot_sketch import Sketch

    return Sketch(
        tf.Variable(np.full((buckets, slots), -1, "int32")),
        tf.Variable(np.zeros((buckets, slots), "float32")),
        tf.Variable(np.zeros((buckets, slots), "int32")),
        tf.Variable(np.arange(rows, dtype="int32")[::-1]),
        tf.Variable(np.asarray([rows], "int32")),
        tf.Variable(np.zeros(1, "float32")),
        threshold,
        decay,
    )


def assert_equal_sketches(found, plain):
    ids, scores, rows = (v.numpy() for v in (found.ids, found.scores, found.rows))
    for b, bucket in enumerate(plain.buckets):
        assert ids[b].tolist() == [s[0] for s in bucket] + [-1] * (plain.slots - len(bucket))
        np.testing.assert_allclose(scores[b, : len(bucket)], [s[1] for s in bucket], rtol=1e-6)
        expected = [0 if s[2] is None else s[2] + 1 for s in bucket]
        assert rows[b, : len(bucket)].tolist() == expected
    count = int(found.num_free.numpy()[0])
    assert sorted(found.free_rows.numpy()[:count]) == sorted(plain.free)
    used = (rows[rows > 0] - 1).tolist()
    assert sorted([*found.free_rows.numpy()[:count], *used]) == list(
        range(found.free_rows.shape[0])
    )


@needs_tensorflow
def test_the_sketch_worked_by_hand():
    """Two slots, threshold 3: c takes b's place and score; a is promoted when seen again."""
    sketch = tensor_sketch(1, 2, 1, threshold=3.0)
    promoted = []

    def update(i, g):
        sketch.update(np.asarray([i]), np.asarray([g], "float32"), lambda *x: promoted.append(x))

    a, b, c = 10, 11, 12
    for i, g in ((a, 3.0), (b, 1.0), (c, 1.0)):
        update(i, g)
    assert sketch.ids.numpy().tolist() == [[a, c]]
    assert sketch.scores.numpy().tolist() == [[3.0, 2.0]]
    assert sketch.rows.numpy().tolist() == [[0, 0]]
    update(a, 0.5)
    assert sketch.scores.numpy().tolist() == [[3.5, 2.0]]
    assert sketch.rows.numpy().tolist() == [[1, 0]]
    assert [(i.numpy().tolist(), r.numpy().tolist()) for i, r in promoted if len(i)] == [([a], [0])]
    update(c, 9.0)  # As important, but no row is left.
    assert sketch.ids.numpy().tolist() == [[c, a]]
    assert sketch.rows.numpy().tolist() == [[0, 1]]
    update(b, 1.0)  # The last slot's id has a row: it stays.
    assert sketch.ids.numpy().tolist() == [[c, a]]


@needs_tensorflow
@pytest.mark.parametrize("seed", range(3))
def test_the_sketch_is_that_of_one_id_at_a_time(seed):
    """Random batches with few and many ids a bucket, promotions, decays and lost rows."""
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    settings = {"buckets": 5, "slots": 3, "rows": 6, "threshold": 4.0, "decay": 0.5}
    found, plain = tensor_sketch(**settings), PlainSketch(**settings)
    log = []

    @tf.function
    def update(ids, importance):
        found.update(
            ids,
            importance,
            lambda i, r: tf.py_function(
                lambda i, r: log.extend(zip(i.numpy().tolist(), r.numpy().tolist(), strict=True)),
                [i, r],
                [],
            ),
        )

    for size in rng.integers(1, 60, 40):
        ids = (60 * rng.random(size) ** 3).astype("int64")
        importance = rng.integers(0, 8, size).astype("float32") / 4  # Sums are exact.
        update(tf.constant(ids), tf.constant(importance))
        plain.update(ids, importance)
        assert_equal_sketches(found, plain)
    assert sorted(log) == sorted(plain.promoted)
    assert len(log) > 6, "some row was given twice"


def model_of(layer, optimizer="sgd"):
    inputs = keras.Input((1,), dtype="int32")
    outputs = keras.layers.Dense(1, dtype="float32")(keras.layers.Flatten()(layer(inputs)))
    model = keras.Model(inputs, outputs)
    if not isinstance(optimizer, str):
        model.compile(optimizer, "mse")
        optimizer.build(model.trainable_variables)
        return model
    model.compile(keras.optimizers.get({"class_name": optimizer, "config": {}}), "mse")
    model.optimizer.learning_rate.assign(0.05)
    return model


@needs_tensorflow
def test_ids_with_large_gradients_get_rows_and_then_vectors_of_their_own():
    layer = CAFEEmbedding(100, 4, num_hot=8, num_buckets=5, threshold=5.0)
    model = model_of(layer, "adagrad")
    rng = np.random.default_rng(0)
    important = np.array([3, 13, 44])
    ids = np.where(rng.random(1600) < 0.6, rng.choice(important, 1600), rng.integers(0, 100, 1600))
    labels = np.where(np.isin(ids, important), 9.0 * (ids % 7), 0.1)
    model.fit(ids[:, None], labels[:, None], batch_size=32, verbose=0, shuffle=False)
    assert set(important) <= set(layer.hot_ids())
    # 3 and 13 shared a row, as all ids that are equal modulo 5 do.
    vectors = to_numpy(layer(np.array([3, 13, 98, 88])))
    assert np.abs(vectors[0] - vectors[1]).max() > 1e-3


@needs_tensorflow
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "AMSGrad"])
@pytest.mark.parametrize("by_rows", [True, False])
def test_promotion_moves_no_vector(name, by_rows, monkeypatch):
    """At a learning rate of nearly zero, where no step moves one either."""
    from tf_compemb import optimizers
    from tf_compemb.storage import small_table

    if by_rows:
        monkeypatch.setattr(small_table, "SMALL_TABLE", 0)
    layer = CAFEEmbedding(60, 4, num_hot=6, num_buckets=7, threshold=2.0)
    model = model_of(layer, getattr(optimizers, name)(1e-12))
    before = to_numpy(layer(np.arange(60)))
    ids = (np.random.default_rng(0).random(640) ** 2 * 60).astype("int64")[:, None]
    model.fit(ids, np.ones((640, 1)), batch_size=16, verbose=0)
    assert len(layer.hot_ids()) == 6
    np.testing.assert_allclose(to_numpy(layer(np.arange(60))), before, atol=1e-6)


@needs_tensorflow
def test_only_training_feeds_the_sketch():
    import tensorflow as tf

    layer = CAFEEmbedding(60, 4, num_hot=6, num_buckets=7)
    model = model_of(layer)
    ids = np.arange(32)[:, None]
    model.predict(ids, verbose=0)
    model.evaluate(ids, np.ones((32, 1)), verbose=0)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(ids, training=False))
    tape.gradient(loss, model.trainable_weights[-1])
    assert (weights_by_name(layer)["sketch_ids"] == -1).all()
    model.fit(ids, np.ones((32, 1)), verbose=0)
    found = weights_by_name(layer)
    assert (found["sketch_ids"] >= 0).sum() == 24  # 32 ids in 6 buckets of 4
    # Importances have mean one, so that a batch brings in as much as it has ids.
    assert found["mass"] == pytest.approx(32, rel=1e-5)


@needs_tensorflow
def test_what_is_served_is_the_current_state(tmp_path):
    from tf_compemb.export import saved_model
    from tf_compemb.export.sizes import stored_bytes

    layer = CAFEEmbedding(60, 4, num_hot=6, num_buckets=7, threshold=2.0)
    model = model_of(layer, "adagrad")
    ids = (np.random.default_rng(0).random(320) ** 2 * 60).astype("int64")[:, None]
    model.fit(ids, np.ones((320, 1)), batch_size=16, verbose=0)
    hot = layer.hot_ids()
    assert hot
    served = layer.for_inference()
    everything = np.arange(60)
    np.testing.assert_array_equal(to_numpy(served(everything)), to_numpy(layer(everything)))
    table = weights_by_name(layer)["hot"]
    for i, row in hot.items():
        np.testing.assert_array_equal(to_numpy(layer(np.array([i])))[0], table[row])
    path = saved_model(model, tmp_path / "cafe")
    assert sum(stored_bytes(path).values()) == 4 * (13 * 4 + 6) + 4 * 5


def test_no_rows_for_important_ids_is_the_hashing_trick():
    table = np.random.default_rng(0).normal(size=(7, 4)).astype("float32")
    cafe = CAFEEmbedding(50, 4, num_hot=0, num_buckets=7)
    hashed = HashEmbedding(50, 4, num_buckets=7)
    for layer, name in ((cafe, "cold"), (hashed, "embeddings")):
        layer.build(None)
        getattr(layer, name).assign(table)
    ids = np.arange(50)
    np.testing.assert_array_equal(to_numpy(cafe(ids)), to_numpy(hashed(ids)))
    assert cafe.footprint() == hashed.footprint()
    assert cafe.for_inference() is cafe


def test_sizes():
    """A hundredth of 64 MB, with the sketch, as in the paper's formula at 52 bytes a row."""
    size = CAFEEmbedding(1_000_000, 16, collisions=100, hash_share=0.3).footprint()
    rows, shared = 7000 * 64 // (64 + 52), 3000
    assert size.parameters == (rows + shared) * 16
    assert size.index_bytes == 52 * rows + 8
    assert 0.999 * 640_000 < size.training_bytes <= 640_000 + 8
    assert size.inference_bytes == 64 * (rows + shared) + 4 * rows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_hot": 50}, "`num_hot` must be from 0 to below input_dim=50"),
        ({"num_hot": -1}, "Received: num_hot=-1"),
        ({"hash_share": 0}, "`hash_share` must be above 0 and at most 1. Received: hash_share=0"),
        ({"threshold": float("inf")}, "`threshold` must be a finite number. Received: "),
        ({"threshold": 0}, "`threshold` must be above 0"),
        ({"decay": 1.5}, "`decay` must be above 0 and at most 1"),
    ],
)
def test_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        CAFEEmbedding(50, 4, **options)


@needs_tensorflow
def test_the_sketch_is_saved_with_the_model(tmp_path):
    layer = CAFEEmbedding(60, 4, num_hot=6, num_buckets=7, threshold=2.0, name="field")
    model = model_of(layer)
    ids = (np.random.default_rng(0).random(320) ** 2 * 60).astype("int64")[:, None]
    model.fit(ids, np.ones((320, 1)), batch_size=16, verbose=0)
    model.save(tmp_path / "model.keras")
    again = keras.models.load_model(tmp_path / "model.keras")
    for name, value in weights_by_name(layer).items():
        np.testing.assert_array_equal(weights_by_name(again.get_layer("field"))[name], value)
    assert again.get_layer("field").hot_ids() == layer.hot_ids() != {}


MIRRORED = """
import tensorflow as tf
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2)
import numpy as np
from tf_compemb import CAFEEmbedding
from tf_compemb._keras import keras
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.Input((1,), dtype="int64"), CAFEEmbedding(50, 4)])
    model.compile("sgd", "mse")
try:
    model.fit(np.zeros((8, 1), "int64"), np.zeros((8, 1, 4)), verbose=0)
except NotImplementedError as error:
    print("refused:", str(error))
"""


@needs_tensorflow
def test_mirrored_training_is_refused():
    done = subprocess.run([sys.executable, "-c", MIRRORED], capture_output=True, text=True)
    assert "sketch follows the gradients of one device" in done.stdout, done.stderr[-2000:]


def test_randomized_weights_are_served_alike():
    """On every runtime, whatever the sketch holds."""
    layer = CAFEEmbedding(50, 4, num_hot=9, num_buckets=7)
    layer.build(None)
    randomize(layer)
    ids, rows = np.full((9, 4), -1), np.zeros((9, 4))
    for row, i in enumerate([49, 0, 10, 1, 19]):
        slot = int(np.flatnonzero(ids[i % 9] < 0)[0])
        ids[i % 9, slot], rows[i % 9, slot] = i, row + 1
    layer.sketch_ids.assign(ids)
    layer.sketch_rows.assign(rows)
    assert layer.hot_ids() == {49: 0, 0: 1, 10: 2, 1: 3, 19: 4}
    everything = np.arange(50)
    vectors = to_numpy(layer(everything))
    np.testing.assert_array_equal(to_numpy(layer.for_inference()(everything)), vectors)
    np.testing.assert_array_equal(vectors[[49, 0, 10]], weights_by_name(layer)["hot"][:3])
    assert json.loads(json.dumps(layer.get_config()))["num_hot"] == 9


@pytest.mark.slow
@pytest.mark.skipif(not LEGACY, reason="training needs tensorflow-recommenders, and so tf_keras")
def test_a_killed_run_resumes_to_the_same_ids_and_weights(tmp_path, monkeypatch):
    """SIGKILL after 24 of 38 steps; a checkpoint was written after 16."""
    import signal

    from training_program import SMALL, metrics, run_program

    monkeypatch.setenv("TF_COMPEMB_CACHE", str(tmp_path / "cache"))
    arguments = ["--rows", "1400", *SMALL, "--embedding", "cafe", "--option", "threshold=2"]
    arguments += ["--steps-per-execution", "8", "--checkpoint-every", "16"]
    unbroken, killed = tmp_path / "unbroken", tmp_path / "killed"
    assert run_program(*arguments, "--out", unbroken) == 0
    program = (
        "import os, signal\n"
        "from tf_compemb.training.progress import StepProgress\n"
        "def show(self, step, loss):\n"
        "    if step >= 24: os.kill(os.getpid(), signal.SIGKILL)\n"
        "StepProgress.show = show\n"
        "from tf_compemb.train import main\n"
        f"main({[*arguments, '--out', str(killed)]!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert run_program("--resume", "--out", killed) == 0
    assert metrics(killed)["test_loss"] == metrics(unbroken)["test_loss"]
    first, second = (stored_weights(run) for run in (unbroken, killed))
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    rows = [value for name, value in first.items() if name.endswith("/sketch_rows")]
    assert sum((r > 0).sum() for r in rows) > 10


def stored_weights(run):
    from tf_compemb.training.saved_runs import load_run

    store = {}
    load_run(run).embeddings.save_own_variables(store)
    return store
