"""A trained run teaches another: the loss by hand, who is trained, the program."""

import json

import numpy as np
import pytest
from training_program import SMALL, history, metrics, needs_tf_keras, run_program

if needs_tf_keras():
    pytest.skip(needs_tf_keras(), allow_module_level=True)

import tensorflow as tf
from click_rows import write_rows

from tf_compemb import EmbeddingCollection
from tf_compemb.models import DCN, DLRM
from tf_compemb.training.distillation import Distillation
from tf_compemb.training.saved_runs import load_run

FIELDS = {"a": 60, "b": 40}


def click_model(cls=DLRM, embedding="full", **options):
    networks = {"bottom_units": (8,), "top_units": (8,)} if cls is DLRM else {"deep_units": (8,)}
    collection = EmbeddingCollection(FIELDS, 4, embedding, **options)
    model = cls(collection, dense_features=3, **networks)
    model.build_on_one_row()
    return model


def rows(labels=None, count=64):
    rng = np.random.default_rng(0)
    features = {
        "dense": tf.constant(rng.normal(size=(count, 3)), tf.float32),
        "categorical": tf.constant(rng.integers(0, 40, size=(count, 2))),
    }
    drawn = rng.integers(0, 2, size=(count, 1))
    return features, tf.constant(drawn if labels is None else labels, tf.float32)


def test_the_loss_by_hand():
    """Teacher at logit 2, student at 0, label 1, tau = 2: KL = 0.7311 ln 1.4622 + ..."""

    def teacher(features, training):
        assert not training
        return tf.constant([[2.0], [0.0]])

    cross_entropy = tf.constant([0.6931, 0.6931])
    logits = tf.zeros((2, 1))
    for weight, expected in ((0.0, 0.6931), (0.5, 0.5685), (1.0, 0.4438)):
        found = Distillation(teacher, weight, temperature=2.0).row_losses(cross_entropy, logits, {})
        # Where teacher and student agree only the share of the labels is left.
        np.testing.assert_allclose(found, [expected, (1 - weight) * 0.6931], atol=2e-4)


@pytest.mark.parametrize(
    ("weight", "temperature", "message"),
    [(1.5, 2, r"from 0 to 1\. .*weight=1.5"), (0.5, 0, r"above 0\. .*temperature=0")],
)
def test_numbers_out_of_range_are_refused(weight, temperature, message):
    with pytest.raises(ValueError, match=message):
        Distillation(None, weight, temperature)


@pytest.mark.parametrize("cls", [DLRM, DCN])
def test_only_the_student_is_trained(cls):
    """The teacher's averages too stay as they are: it is called as in service."""
    options = {"num_hashes": 8, "hidden_units": (4,)}
    teacher = click_model(cls, "dhe", options=options, threshold=0)
    student = click_model(cls, "low_rank", options={"rank": 2})
    student.learn_from(Distillation(teacher))
    student.compile("sgd")
    before = teacher.get_weights()
    assert {id(w) for w in student.weights}.isdisjoint({id(w) for w in teacher.weights})
    count = len(student.trainable_variables)
    student.fit(tf.data.Dataset.from_tensors(rows()).repeat(3), verbose=0)
    for old, new in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    assert len(student.trainable_variables) == count


def test_a_student_of_weight_one_learns_the_teacher_s_logits_and_no_label():
    teacher = click_model()
    features, _ = rows()

    def trained(labels):
        tf.keras.utils.set_random_seed(3)
        student = click_model(embedding="low_rank", options={"rank": 2})
        student.learn_from(Distillation(teacher, weight=1.0, temperature=1.0))
        student.compile(tf.keras.optimizers.Adam(0.02))
        before = np.abs(student(features) - teacher(features)).mean()
        student.fit(tf.data.Dataset.from_tensors(rows(labels)).repeat(150), verbose=0)
        return student, before

    (first, before), (second, _) = trained(np.zeros((64, 1))), trained(np.ones((64, 1)))
    for a, b in zip(first.trainable_weights, second.trainable_weights, strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.abs(first(features) - teacher(features)).mean() < before / 4


def test_the_metric_and_the_evaluation_are_of_the_labels():
    student, plain = click_model(), click_model()
    plain.set_weights(student.get_weights())
    student.learn_from(Distillation(click_model()))
    inputs = rows()
    for model in (student, plain):
        model.compute_loss(inputs, training=model is student)
    assert float(student.log_loss.result()) == float(plain.log_loss.result())
    assert float(student.compute_loss(inputs)) == float(plain.compute_loss(inputs))
    assert float(student.compute_loss(inputs, training=True)) != float(plain.compute_loss(inputs))


@pytest.fixture(scope="module")
def teacher_run(tmp_path_factory):
    """Data, a finished run on them, and the arguments that both runs have."""
    folder = tmp_path_factory.mktemp("distillation")
    data = write_rows(folder / "train.txt", 700)
    arguments = ["--data", data, "--cache", folder / "cache", *SMALL]
    assert run_program(*arguments, "--out", folder / "teacher") == 0
    return folder, arguments


def test_the_program_trains_a_student(teacher_run):
    folder, arguments = teacher_run
    teacher = (folder / "teacher/model/model.keras").read_bytes()
    student = [*arguments, "--embedding", "hash", "--distill", folder / "teacher"]
    assert run_program(*student, "--distill-weight", "0.7", "--out", folder / "student") == 0
    assert metrics(folder / "student")["test_loss"] < 0.8
    stored = json.loads((folder / "student/config.json").read_text())["options"]
    assert (stored["distill_weight"], stored["temperature"]) == (0.7, 2.0)
    assert (folder / "teacher/model/model.keras").read_bytes() == teacher
    # Nothing of the teacher is in the student's file.
    model = load_run(folder / "student")
    assert model._distillation is None
    trained = sum(w.shape.num_elements() for w in model.trainable_weights)
    assert trained == metrics(folder / "student")["parameters"]


def test_a_teacher_without_weight_changes_nothing(teacher_run):
    folder, arguments = teacher_run
    assert run_program(*arguments, "--embedding", "hash", "--out", folder / "alone") == 0
    taught = [*arguments, "--embedding", "hash", "--distill", folder / "teacher"]
    assert run_program(*taught, "--distill-weight", "0", "--out", folder / "weightless") == 0
    assert history(folder / "weightless") == history(folder / "alone")


def test_a_teacher_of_other_data_or_none_is_refused(teacher_run, tmp_path, capsys):
    folder, arguments = teacher_run
    other = write_rows(tmp_path / "other.txt", 700, seed=5)
    given = ["--data", other, *arguments[2:], "--distill", folder / "teacher"]
    assert run_program(*given, "--out", tmp_path / "student") == 2
    assert "was trained on other data" in capsys.readouterr().err
    assert run_program(*arguments, "--distill", tmp_path, "--out", tmp_path / "student") == 2
    assert "has no config.json: there is no run to read" in capsys.readouterr().err
    assert run_program(*arguments, "--temperature", "3", "--out", tmp_path / "student") == 2
    assert "need --distill RUN" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stopped:
        run_program(*arguments, "--distill-weight", "2")
    assert stopped.value.code == 2
    assert "must be from 0 to 1, not '2'" in capsys.readouterr().err
