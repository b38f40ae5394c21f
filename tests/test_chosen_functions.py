"""Networks chosen by class: every form against NumPy, value and gradient."""

import itertools

import numpy as np
import pytest
from runtime import ids_of, to_numpy

from tf_compemb._keras import BACKEND, ops
from tf_compemb.layers.compositional import _chosen_functions
from tf_compemb.layers.compositional._chosen_functions import apply_chosen

WIDTHS = {
    "wider inside": (4, 9, 4),
    "narrower inside": (6, 2, 6),
    "two": (3, 5, 4, 3),
    "none": (4, 4),
}


def networks(widths, count=3, size=40):
    rng = np.random.default_rng(len(widths))
    shapes = list(itertools.pairwise(widths))
    kernels = [rng.normal(size=(count, *shape)).astype("float32") for shape in shapes]
    biases = [rng.normal(size=(count, shape[1])).astype("float32") for shape in shapes]
    vectors = rng.normal(size=(size, widths[0])).astype("float32")
    return vectors, rng.integers(0, count, size), kernels, biases


def one_by_one(vectors, classes, kernels, biases):
    found = []
    for vector, c in zip(vectors.astype("float64"), classes, strict=True):
        for i, (kernel, bias) in enumerate(zip(kernels, biases, strict=True)):
            vector = vector @ kernel[c] + bias[c]
            if i < len(kernels) - 1:
                vector = np.maximum(vector, 0)
        found.append(vector)
    return np.array(found)


@pytest.fixture(params=[0, 10**6], ids=["grouped", "masked"])
def form(request, monkeypatch):
    monkeypatch.setattr(_chosen_functions, "GROUPED_FROM", request.param)


@pytest.mark.parametrize("widths", WIDTHS.values(), ids=list(WIDTHS))
def test_each_vector_goes_through_the_network_of_its_class(widths, form):
    vectors, classes, kernels, biases = networks(widths)
    tensors = [[ops.convert_to_tensor(x) for x in part] for part in (kernels, biases)]
    found = apply_chosen(ops.convert_to_tensor(vectors), ids_of(classes), *tensors, ops.relu)
    expected = one_by_one(vectors, classes, kernels, biases)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5, atol=1e-5)


def test_a_class_without_vectors_changes_nothing(form):
    vectors, classes, kernels, biases = networks((4, 9, 4), count=5)
    classes = np.where(classes == 3, 1, classes)
    tensors = [[ops.convert_to_tensor(x) for x in part] for part in (kernels, biases)]
    found = apply_chosen(ops.convert_to_tensor(vectors), ids_of(classes), *tensors, ops.relu)
    expected = one_by_one(vectors, classes, kernels, biases)
    np.testing.assert_allclose(to_numpy(found), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow has two forms")
@pytest.mark.parametrize("widths", WIDTHS.values(), ids=list(WIDTHS))
def test_both_forms_have_the_same_gradients(widths, monkeypatch):
    import tensorflow as tf

    vectors, classes, kernels, biases = networks(widths)
    upstream = np.random.default_rng(9).normal(size=(40, widths[-1])).astype("float32")
    found = []
    for start in (0, 10**6):
        monkeypatch.setattr(_chosen_functions, "GROUPED_FROM", start)
        inputs = [tf.constant(x) for x in (vectors, *kernels, *biases)]
        with tf.GradientTape() as tape:
            tape.watch(inputs)
            split = 1 + len(kernels)
            out = apply_chosen(inputs[0], classes, inputs[1:split], inputs[split:], tf.nn.relu)
        found.append(tape.gradient(out, inputs, tf.constant(upstream)))
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
