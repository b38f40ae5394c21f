"""The compiled kernels of the row optimisers: numbers, refusals, and how they are built."""

import hashlib
import re
import stat
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tf_compemb._keras import BACKEND, keras

if BACKEND != "tensorflow":
    pytest.skip("the kernels are TensorFlow's", allow_module_level=True)

import conftest
import optimizer_oracle as oracle
import tensorflow as tf
from optimizer_training import apply_slices, make_optimizer, make_step, make_table, raw, train
from runtime import printed_with_threads, randomize, saved_graphs, types_of_ops

from tf_compemb import FullEmbedding, native_kernels
from tf_compemb.native_kernels import library
from tf_compemb.native_kernels.__main__ import main
from tf_compemb.native_kernels.build import BuildError, compile_library
from tf_compemb.native_kernels.check import WrongResultError, refuse_wrong

ROOT = Path(__file__).resolve().parent.parent
OPS = {"sgd": "SgdRows", "adagrad": "AdagradRows", "rowwise_adagrad": "AdagradRows"}
FIXTURE = [HealthCheck.function_scoped_fixture]  # `kernels` is the same in every example
EPSILON = 1e-7  # as in the oracle
compiled = pytest.mark.slow  # compiling takes ten seconds


@pytest.fixture
def cache(monkeypatch, tmp_path):
    """An empty cache folder, which the kernels are looked for in."""
    monkeypatch.setenv("TF_COMPEMB_CACHE", str(tmp_path))
    monkeypatch.delenv(native_kernels.SWITCH, raising=False)
    library.loaded.cache_clear()
    yield tmp_path
    library.loaded.cache_clear()


def accumulator_of(rule, shape):
    return np.full((shape[0], 1) if rule == "rowwise_adagrad" else shape, 0.1, "float32")


def step(kernels, rule, table, accumulator, ids, values, rate=0.25):
    """One step by the kernels: the table and the accumulator after it."""
    weights, state = tf.Variable(table), tf.Variable(accumulator)
    apply(kernels, rule, weights, state, ids, values, rate)
    return weights.numpy(), state.numpy()


def apply(kernels, rule, weights, state, ids, values, rate):
    if rule == "sgd":
        kernels.tf_compemb_sgd_rows(weights.handle, ids, values, rate)
    else:
        kernels.tf_compemb_adagrad_rows(
            weights.handle, state.handle, ids, values, rate, epsilon=EPSILON
        )


def step_by_oracle(rule, table, ids, values, rate=0.25):
    gradient = np.zeros(table.shape)
    np.add.at(gradient, ids, values.astype("float64"))
    dense = oracle.RULES[rule](table.shape)
    moved = dense.step(table.astype("float64"), gradient, 1, rate)
    return moved, getattr(dense, "a", accumulator_of(rule, table.shape))


def check_step(kernels, rule, table, ids, values):
    moved, state = step(kernels, rule, table, accumulator_of(rule, table.shape), ids, values)
    expected, expected_state = step_by_oracle(rule, table, ids, values)
    np.testing.assert_allclose(moved, expected, rtol=1e-6, atol=1e-5)
    np.testing.assert_allclose(state, expected_state, rtol=1e-5)


def random_step(rows, width, slices, seed=0, id_type="int64"):
    rng = np.random.default_rng(seed)
    ids = rng.integers(0, rows, slices).astype(id_type)
    return (
        rng.normal(size=(rows, width)).astype("float32"),
        ids,
        rng.normal(size=(slices, width)).astype("float32"),
    )


@compiled
@pytest.mark.parametrize("rule", OPS)
@pytest.mark.parametrize("width", [1, 2, 3, 7, 8, 15, 16, 17, 31, 33, 64, 65])
def test_a_step_is_the_oracles(kernels, rule, width):
    check_step(kernels, rule, *random_step(50, width, 120, seed=width))


@compiled
@pytest.mark.parametrize("rule", OPS)
@pytest.mark.parametrize("id_type", ["int32", "int64"])
def test_both_types_of_id(kernels, rule, id_type):
    check_step(kernels, rule, *random_step(20, 4, 40, id_type=id_type))


@compiled
@pytest.mark.parametrize("rule", OPS)
@pytest.mark.parametrize("rows", [1, 2, 2**11, 2**11 + 1, 2**16 + 3, 2**22 + 5])
def test_tables_whose_row_numbers_take_one_two_or_three_digits(kernels, rule, rows):
    # The rows at both ends, each from the first and the last slices, among others.
    table, ids, values = random_step(rows, 1, 3000)
    ids[[0, -1]], ids[[1, -2]] = 0, rows - 1
    check_step(kernels, rule, table, ids, values)


@compiled
@pytest.mark.parametrize("rule", OPS)
@given(data=st.data())
@settings(deadline=None, max_examples=40, suppress_health_check=FIXTURE)
def test_any_ids_in_any_order(kernels, rule, data):
    rows, width = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 20))
    ids = data.draw(st.lists(st.integers(0, rows - 1), max_size=60))
    table, _, values = random_step(rows, width, len(ids), data.draw(st.integers(0, 9)))
    check_step(kernels, rule, table, np.asarray(ids, "int64"), values)


@compiled
@pytest.mark.parametrize("rule", OPS)
def test_an_empty_batch_changes_nothing(kernels, rule):
    table, ids, values = random_step(5, 3, 0)
    moved, state = step(kernels, rule, table, accumulator_of(rule, (5, 3)), ids, values)
    np.testing.assert_array_equal(moved, table)
    np.testing.assert_array_equal(state, accumulator_of(rule, (5, 3)))


@compiled
def test_three_duplicates_count_as_their_sum(kernels):
    # 0.1 * 1.5 / sqrt(0.1 + 1.5^2) = 0.0978, as the optimisers' own test has it.
    table, values = np.zeros((2, 1), "float32"), np.full((3, 1), 0.5, "float32")
    moved, state = step(
        kernels, "adagrad", table, accumulator_of("adagrad", (2, 1)), [1, 1, 1], values, rate=0.1
    )
    assert moved[:, 0] == pytest.approx([0, -0.15 / np.sqrt(2.35)], rel=1e-6)
    assert state[:, 0] == pytest.approx([0.1, 2.35], rel=1e-6)


@compiled
@pytest.mark.parametrize("rule", OPS)
@pytest.mark.parametrize("outside", [7, -1, 2**31 - 1, -(2**31)])
@pytest.mark.parametrize("id_type", ["int32", "int64"])
def test_an_id_out_of_range_is_refused_and_nothing_is_written(kernels, rule, outside, id_type):
    table, ids, values = random_step(7, 2, 5000, id_type=id_type)
    ids[4321] = outside
    weights, state = tf.Variable(table), tf.Variable(accumulator_of(rule, (7, 2)))
    message = rf"ids\[4321\] = {outside} is not in \[0, 7\)"
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        apply(kernels, rule, weights, state, ids, values, 0.1)
    np.testing.assert_array_equal(weights, table)
    np.testing.assert_array_equal(state, accumulator_of(rule, (7, 2)))


@compiled
@pytest.mark.parametrize(
    ("table", "state", "ids", "values", "rate", "message"),
    [
        ((4, 2), (4, 2), [0, 1], (2, 3), 0.1, r"gradients of \[2\] ids of rows of width 2 have"),
        ((4, 2), (4, 2), [[0, 1]], (2, 2), 0.1, r"gradients of \[1,2\] ids"),
        ((4, 2), (4, 3), [0], (1, 2), 0.1, r"accumulator must have the shape \[4,2\] or \[4,1\]"),
        ((4, 2), (3, 1), [0], (1, 2), 0.1, r"accumulator must have the shape"),
        ((4,), (4,), [0], (1, 1), 0.1, "must be float32 matrices"),
        ((4, 2), (4, 2), [0], (1, 2), [0.1], r"learning rate must be a scalar, not of shape \[1\]"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(kernels, table, state, ids, values, rate, message):
    weights, state = tf.Variable(tf.zeros(table)), tf.Variable(tf.zeros(state))
    with pytest.raises(tf.errors.InvalidArgumentError, match=message):
        kernels.tf_compemb_adagrad_rows(
            weights.handle, state.handle, ids, tf.ones(values), rate, epsilon=0.0
        )
    assert not np.any(weights)


def digest_of_a_large_step(kernels):
    """A hash of all bits after a step of many blocks, a tenth of whose slices is of one row."""
    table, ids, values = random_step(3000, 9, 40_000)
    ids[::10] = 17
    parts = [
        step(kernels, rule, table, accumulator_of(rule, table.shape), ids, values) for rule in OPS
    ]
    return hashlib.sha256(b"".join(a.tobytes() for part in parts for a in part)).hexdigest()


@compiled
def test_every_bit_is_the_same_whatever_the_number_of_threads(kernels):
    expected = digest_of_a_large_step(kernels)
    assert digest_of_a_large_step(kernels) == expected
    script = (
        "import test_native_kernels as t; from tf_compemb.native_kernels import library; "
        "print(t.digest_of_a_large_step(library.loaded()))"
    )
    assert printed_with_threads(7, script) == expected


@compiled
def test_what_was_read_before_a_step_does_not_change(kernels):
    table = tf.Variable(tf.zeros((3, 2)))
    before = table.read_value()
    kernels.tf_compemb_sgd_rows(table.handle, [1], tf.ones((1, 2)), 1.0)
    between = table.read_value()
    kernels.tf_compemb_sgd_rows(table.handle, [1], tf.ones((1, 2)), 1.0)
    assert [t.numpy()[1, 0] for t in (before, between, table)] == [0, -1, -2]


@compiled
@pytest.mark.parametrize("rule", OPS)
def test_optimisers_use_the_kernels_and_train_as_the_oracle(kernels, rule):
    problem = oracle.Problem(rows=40, width=4, steps=120, batch=8, seed=3)
    table, optimizer = make_table(problem.start), make_optimizer(rule, 0.0625)
    optimizer.build([table])
    compiled_step = make_step(optimizer, table, problem.target)
    types = types_of_ops(compiled_step, *arguments(problem))
    assert f"TfCompemb>{OPS[rule]}" in types
    assert "ResourceScatterUpdate" not in types
    expected = oracle.train(rule, problem, lambda t: 0.0625)
    got = train(make_optimizer(rule, 0.0625), problem, "float32")
    np.testing.assert_allclose(got, expected, rtol=0, atol=3e-5)


@compiled
@pytest.mark.parametrize(("dtype", "jit"), [("float64", False), ("float32", True)])
def test_other_types_and_xla_take_the_ops_of_tensorflow(kernels, dtype, jit):
    problem = oracle.Problem(rows=40, width=4, steps=1, batch=8, seed=3)
    table, optimizer = make_table(problem.start, dtype), make_optimizer("sgd", 0.0625)
    optimizer.build([table])
    inner = make_step(optimizer, table, problem.target).python_function
    types = types_of_ops(tf.function(inner, jit_compile=jit), *arguments(problem, dtype))
    assert "ResourceScatterUpdate" in types
    assert not any(name.startswith("TfCompemb") for name in types)


def arguments(problem, dtype="float32"):
    """What a step of the problem is called with."""
    return tf.constant(problem.ids[0]), tf.constant(problem.noise[0], dtype)


def embedding(rows=50, width=3):
    layer = FullEmbedding(rows, width)
    layer(np.array([0]))
    randomize(layer)
    return layer, raw(layer.weights[0])


def read_in_training(layer, table, ids):
    """Vectors, and the gradient of the sum of their squares."""
    with tf.GradientTape() as tape:
        vectors = layer(ids, training=True)
        loss = tf.reduce_sum(vectors**2)
    return vectors, tape.gradient(loss, table)


@compiled
@pytest.mark.parametrize("shape", [(0,), (1,), (4, 3), (5000,)])
@pytest.mark.parametrize("width", [1, 16, 17])
def test_rows_read_in_training_are_the_tables(kernels, every_table_is_read_by_rows, shape, width):
    layer, table = embedding(width=width)
    ids = np.random.default_rng(0).integers(0, 50, shape)
    traced = tf.function(lambda x: read_in_training(layer, table, x))
    types = types_of_ops(traced, tf.constant(ids))
    assert "TfCompemb>ReadRows" in types
    assert "ResourceGather" not in types
    for vectors, gradient in (read_in_training(layer, table, ids), traced(tf.constant(ids))):
        np.testing.assert_array_equal(vectors, table.numpy()[ids])
        assert isinstance(gradient, tf.IndexedSlices)
        np.testing.assert_array_equal(gradient.indices, ids.reshape(-1))
        np.testing.assert_array_equal(gradient.values, 2 * table.numpy()[ids.reshape(-1)])
        assert tuple(gradient.dense_shape) == (50, width)


@compiled
@pytest.mark.parametrize("outside", [-1, 5, 2**40])
def test_reading_a_row_that_is_not_there_is_refused(kernels, outside):
    table = tf.Variable(tf.zeros((5, 2)))
    ids = np.zeros(9000, "int64")
    ids[[7001, 8001]] = outside
    with pytest.raises(
        tf.errors.InvalidArgumentError, match=rf"ids\[7001\] = {outside} is not in \[0, 5\)"
    ):
        kernels.tf_compemb_read_rows(table.handle, ids, rows=5, width=2)


@compiled
def test_what_is_saved_after_training_needs_no_kernels(
    kernels, every_table_is_read_by_rows, tmp_path
):
    model = keras.Sequential([keras.Input((), dtype="int64"), FullEmbedding(50, 3)])
    model.compile(make_optimizer("sgd", 1.0), "mse", steps_per_execution=2)
    before = model.weights[0].numpy()
    model.fit(np.arange(8), np.zeros((8, 3)), batch_size=2, verbose=0)
    assert np.abs(model.weights[0].numpy() - before)[:8].min() > 0
    np.testing.assert_array_equal(model.weights[0].numpy()[8:], before[8:])
    graphs = saved_graphs(model, tmp_path / "model")
    assert b"ResourceGather" in graphs
    assert b"TfCompemb" not in graphs


@compiled
@pytest.mark.parametrize(("jit", "training"), [(True, True), (False, False)])
def test_xla_and_evaluation_read_by_tensorflows_op(
    kernels, every_table_is_read_by_rows, jit, training
):
    layer, table = embedding()

    def read(ids):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum(layer(ids, training=training))
        return tape.gradient(loss, table).values

    types = types_of_ops(tf.function(read, jit_compile=jit), tf.constant([1]))
    assert "ResourceGather" in types
    assert "TfCompemb>ReadRows" not in types


def test_nothing_is_used_before_it_is_built(cache):
    assert not native_kernels.available()
    table = make_table(np.zeros((2, 1)))
    apply_slices(make_optimizer("sgd", 1.0), table, [1, 1], [[1.0], [2.0]])
    assert table.numpy().tolist() == [[0], [-3]]


def test_a_library_that_does_not_load_is_named_and_not_used(cache):
    path = library.library_path()
    path.parent.mkdir()
    path.write_bytes(b"no library")
    with pytest.warns(UserWarning, match=rf"{path.name} do not load .* Delete the file and build"):
        assert not native_kernels.available()


@compiled
def test_the_switch_leaves_the_kernels_out(kernels, monkeypatch):
    assert native_kernels.available()
    monkeypatch.setenv(native_kernels.SWITCH, "0")
    library.loaded.cache_clear()
    assert not native_kernels.available()


@compiled
def test_the_program_finds_what_it_built_before(kernels, capsys):
    before = library.library_path().stat().st_mtime_ns
    assert main([]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"built before: {library.library_path()}"
    assert lines[1].startswith(
        "largest differences from TensorFlow's ops: lookup 0.0e+00, products "
    )
    assert library.library_path().stat().st_mtime_ns == before


def fake_compiler(folder, script):
    path = folder / "compiler"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def test_a_failed_build_says_the_compilers_first_error(cache, monkeypatch, tmp_path, capsys):
    script = "echo 'In file included from x:' >&2; echo 'x.cc:7: error: no such type' >&2; exit 1"
    compiler = fake_compiler(tmp_path, script)
    monkeypatch.setenv("CXX", compiler)
    assert main([]) == 2
    assert capsys.readouterr().err == (
        f"error: {compiler} failed: x.cc:7: error: no such type; another or a newer compiler may "
        "do (g++ 9, clang 10; set CXX to it).\n"
    )
    assert list(library.library_path().parent.iterdir()) == []


# Notes its arguments and writes what it is asked for, unless these hold what it cannot compile.
CHOOSY = """
echo "$@" >> {folder}/calls
case "$* " in {refused}) echo 'x.h:1: error: no such instruction' >&2; exit 1;; esac
while [ $# -gt 0 ]; do [ "$1" = -o ] && touch "$2"; shift; done
"""


@pytest.mark.parametrize(
    ("refused", "flags"),
    [
        ("never", "-march=native"),
        # As g++ 12 on a processor with AVX512-FP16, and then one that has no such option.
        ("*-march=native?-w*", "-march=native -mno-avx512fp16"),
        ("*-march=native?-w*|*-mno-avx512fp16*", "-march=native -mno-avx512f"),
        ("*-march=*", "-mcpu=native"),
        ("*=native*", ""),
    ],
)
def test_the_first_flags_that_compile_are_taken(monkeypatch, tmp_path, refused, flags):
    script = CHOOSY.format(folder=tmp_path, refused=refused)
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, script) + " -m64")
    assert compile_library(tmp_path / "kernels.so") == tuple(flags.split())
    assert (tmp_path / "kernels.so").exists()
    calls = (tmp_path / "calls").read_text().splitlines()
    kept = [call for call in calls if f"-fPIC {flags}".strip() + " -w " in call]
    sources = [path.name for path in library.sources() if path.suffix == ".cc"]
    assert len(kept) == len(sources) + 1
    assert all(call.startswith("-m64 -O3 ") for call in calls)
    # Others are given up at the first source.
    refused_flags = library.PROCESSOR_FLAGS.index(tuple(flags.split()))
    assert len(calls) == len(kept) + refused_flags


@pytest.mark.parametrize(
    ("log", "remedy"),
    [
        (
            "a.cc:6:10: fatal error: tensorflow/core/framework/op.h: No such file or directory",
            "install the package tensorflow again",
        ),
        ("a.cc:5:10: fatal error: 'cstdint' file not found", "C.. standard library's headers"),
        ("error: unrecognized command line option '--std=c++17'", "install a newer compiler"),
        ("ld: error: cannot find -l:libtensorflow_framework.so.2", "install tensorflow again"),
        ("g++: fatal error: Killed signal terminated program cc1plus", "free some memory"),
        ("fatal error: writing to /tmp/a.s: No space left on device", "free some space"),
    ],
)
def test_a_failed_build_has_a_remedy(monkeypatch, tmp_path, log, remedy):
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, f'echo "{log}" >&2; exit 1'))
    with pytest.raises(BuildError, match=rf"failed: {re.escape(log)}; .*{remedy}.*\.$"):
        compile_library(tmp_path / "kernels.so")


def test_a_compiler_that_is_killed_is_said_to_be(monkeypatch, tmp_path):
    monkeypatch.setenv("CXX", fake_compiler(tmp_path, "kill -9 $$"))
    with pytest.raises(BuildError, match="killed by signal 9; free some memory"):
        compile_library(tmp_path / "kernels.so")


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_where_ci_has_no_compiler_the_kernels_tests_fail(request, monkeypatch, ci, outcome):
    monkeypatch.setattr(library, "loaded", lambda: None)
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome, match="CXX=no-such-compiler"):
        conftest.folder_of_built_kernels(request.getfixturevalue("tmp_path_factory"))


@pytest.mark.parametrize(
    ("settings_", "message"),
    [
        ({"CXX": "no-such-compiler"}, "error: CXX=no-such-compiler in the environment is no"),
        ({"PATH": ""}, "error: No C++ compiler was found: install g++, or set CXX"),
    ],
)
def test_without_a_compiler_the_program_says_what_to_install(
    cache, monkeypatch, capsys, settings_, message
):
    monkeypatch.delenv("CXX", raising=False)
    for name, value in settings_.items():
        monkeypatch.setenv(name, value)
    assert main([]) == 2
    assert capsys.readouterr().err.startswith(message)


def test_kernels_that_compute_something_else_are_deleted(tmp_path):
    path = tmp_path / "kernels.so"
    path.touch()
    refuse_wrong({"sgd": 1e-7, "adagrad": 2e-6}, path)
    assert path.exists()
    with pytest.raises(WrongResultError, match="adagrad, rowwise_adagrad differs by more than"):
        refuse_wrong({"sgd": 1e-7, "adagrad": 2e-5, "rowwise_adagrad": float("nan")}, path)
    assert not path.exists()


def test_another_processor_or_tensorflow_has_another_library(monkeypatch):
    here = library.library_path()
    monkeypatch.setattr(library, "_processor", lambda: "another")
    there = library.library_path()
    monkeypatch.setattr(tf.version, "GIT_VERSION", "another")
    assert len({here, there, library.library_path()}) == 3
