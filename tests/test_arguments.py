"""Every argument of every method with values of the wrong kind: one sentence that names it."""

import inspect
import json
import math

import numpy as np
import pytest
from cases import frequencies, sampled_ids

from tf_compemb import EmbeddingCollection
from tf_compemb._keras import keras
from tf_compemb.layers import get_method, method_names
from tf_compemb.layers.budget import STATISTICS

WRONG = ["three", "3", 2.5, math.nan, math.inf, -1, [], ["a"], [2.5], [-1], [True], {"a": 1}, None]
WRONG += [True, np.zeros((2, 2)), b"3", object]

# What a method takes of these.
TAKEN = {
    ("path", "hidden_units"): [[]],
    ("dhe", "hidden_units"): [[]],
    ("path", "activation"): [None, object],
    ("ant", "penalty"): [2.5],
    ("cafe", "threshold"): [2.5],
}
ARGUMENTS = [
    (name, option)
    for name in method_names()
    for option in inspect.signature(get_method(name)).parameters
    if option not in (*STATISTICS, "kwargs")
]


def arguments_of(method):
    """What a layer of 50 ids and 8 numbers takes beside its options."""
    cls = get_method(method)
    return {
        "input_dim": 50,
        "output_dim": 8,
        **({"frequencies": frequencies(50)} if cls.needs_frequencies else {}),
        **({"sampled_ids": sampled_ids(50)} if cls.needs_sampled_ids else {}),
    }


def takes(cls, option, value):
    default = inspect.signature(cls).parameters[option].default
    known = [repr(x) for x in TAKEN.get((cls.method_name, option), [])]
    if option == "seed":
        known.append("-1")
    if default is None:
        known.append("None")
    if isinstance(default, bool):
        known.append("True")
    return repr(value) in known


@pytest.mark.parametrize(("method", "option"), ARGUMENTS, ids=lambda x: x)
def test_a_value_of_the_wrong_kind_is_one_sentence(method, option):
    cls = get_method(method)
    taken = 0
    for value in WRONG:
        arguments = {**arguments_of(method), option: value}
        if takes(cls, option, value):
            cls(**arguments)
            taken += 1
            continue
        with pytest.raises(ValueError, match=rf"`{option}` must .*Received: .*{option}=") as found:
            cls(**arguments)
        assert "\n" not in str(found.value)
    assert taken < len(WRONG) / 2


@pytest.mark.parametrize("method", method_names())
def test_the_arguments_of_every_layer_are_checked_too(method):
    cls, arguments = get_method(method), arguments_of(method)
    for option, wrong in {
        "mask_zero": ("no", 1, None, math.nan),
        "combiner": ("max", 3, ["sum"], True, math.nan),
        "embeddings_initializer": ("nope", 3, math.nan, [1], {"class_name": "nope"}),
    }.items():
        for value in wrong:
            with pytest.raises(ValueError, match=f"^`{option}` must .*Received: {option}="):
                cls(**arguments, **{option: value})


INITIALIZERS = ["uniform", keras.initializers.Zeros(), keras.initializers.Zeros]
INITIALIZERS += [lambda shape, dtype=None: None, {"class_name": "Zeros", "config": {}}]


@pytest.mark.parametrize("method", method_names())
@pytest.mark.parametrize("initializer", INITIALIZERS, ids=str)
def test_an_initialiser_in_the_place_that_it_has_in_keras(method, initializer):
    cls = get_method(method)
    message = f"{cls.__name__}: the third argument is not the initialiser.*by name"
    with pytest.raises(TypeError, match=message):
        cls(50, 8, initializer)
    layer = cls(**arguments_of(method), embeddings_initializer="zeros")
    assert type(layer).from_config(layer.get_config()).embeddings_initializer is not None


@pytest.mark.parametrize("method", ["path", "dhe"])
def test_one_number_is_one_layer(method):
    cls = get_method(method)
    one, listed = (cls(50, 8, hidden_units=units) for units in (16, [16]))
    assert one.hidden_units == (16,)
    assert one.footprint() == listed.footprint()
    budget = 4 * 50 * 8
    sizes = [cls.for_budget(50, 8, budget * 10, hidden_units=units) for units in (4, [4])]
    assert cls(50, 8, **sizes[0]).footprint() == cls(50, 8, **sizes[1]).footprint()


@pytest.mark.parametrize(("method", "option"), ARGUMENTS, ids=lambda x: x)
def test_a_budget_names_a_wrong_option_too(method, option):
    cls = get_method(method)
    if option in ("input_dim", "output_dim"):
        return
    for value in ("three", 2.5, math.nan, [2.5], {"a": 1}):
        if takes(cls, option, value):
            continue
        with pytest.raises(ValueError, match=f"^`{option}` must .*Received: {option}="):
            cls.for_budget(50, 8, 10**6, **{option: value})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"embedding": 3}, "Unknown embedding method 3. Known methods: "),
        ({"embedding": ["qr"]}, r"Unknown embedding method \['qr'\]. Known methods: "),
        ({"options": [("collisions", 4)]}, "`options` must be a mapping. Received: options="),
        ({"options": "collisions=4"}, "`options` must be a mapping"),
        ({"overrides": ["a"]}, "`overrides` must be a mapping"),
        ({"overrides": {"a": "qr"}}, r"`overrides\['a'\]` must be a mapping"),
        (
            {"overrides": {"a": {"options": 3}}},
            r"`overrides\['a'\]\['options'\]` must be a mapping",
        ),
        (
            {"threshold": "7"},
            "`threshold` must be 0 or a positive integer. Received: threshold='7'",
        ),
        ({"threshold": math.nan}, "`threshold` must be 0 or a positive integer"),
        (
            {"overrides": {"a": {"threshold": 1.5}}},
            r"`overrides\['a'\]\['threshold'\]` must be 0 or",
        ),
        ({"fused": "no"}, "`fused` must be True or False"),
        ({"mask_zero": "no"}, "`mask_zero` must be True or False"),
        ({"combiner": None}, "`combiner` must be one of 'sum', 'mean', 'sqrtn'. Received: "),
        ({"output_dim": "8"}, "`output_dim` must be a positive integer"),
        (
            {"embedding": "frequency_threshold", "frequencies": {"a": [1]}},
            "`frequencies` must be a func",
        ),
        (
            {"embedding": "path", "options": {"hidden_units": "16"}},
            "'path': `hidden_units` must be",
        ),
    ],
)
def test_arguments_of_a_collection(arguments, message):
    with pytest.raises(ValueError, match=message):
        EmbeddingCollection({"a": 90, "b": 50}, **{"output_dim": 8, **arguments})


@pytest.mark.parametrize("cardinalities", [5, "ab", None, 2.5])
def test_cardinalities_of_the_wrong_kind(cardinalities):
    with pytest.raises(ValueError, match=r"`cardinalities` must be a mapping.*Received: "):
        EmbeddingCollection(cardinalities, 8)


def test_options_of_a_collection_survive_json():
    made = EmbeddingCollection({"a": 9000}, 8, "path", options={"hidden_units": 16})
    again = EmbeddingCollection.from_config(json.loads(json.dumps(made.get_config())))
    assert again.footprint() == made.footprint()
