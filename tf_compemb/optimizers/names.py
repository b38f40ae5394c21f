"""The optimisers by name, for command lines and for footprints. Loads no Keras until `get`."""

from __future__ import annotations

import numbers
from importlib import import_module
from typing import Any, NamedTuple


class _Choice(NamedTuple):
    """What a name stands for.

    Attributes:
        class_name: Class in `tf_compemb.optimizers`.
        options: Arguments of the class.
        learning_rate: Default. Adagrad's is the best of 0.005, 0.01, 0.02 and 0.03 by validation
            loss on a Criteo excerpt at batch 128; the others are customary and were not tuned.
        floats_per_parameter: State of a table, float32 for each of its parameters.
        floats_per_row: State of a table, float32 for each of its rows.
        warmup_steps: Default. Adagrad's first step moves every weight by the whole rate, whatever
            its gradient, and 0.02 for each of a layer's weights can silence all of its ReLU units:
            at batch 2048, DLRM's bottom network was dead within 96 steps of seed 0. With 20 steps
            3 of 315 runs at batch 128 still ended 0.02 to 0.03 above the others, two of them dead
            when trained again; with 50, 100 or 200 14 to 16 of the 16 units lived in all three.
    """

    class_name: str
    options: dict[str, Any]
    learning_rate: float
    floats_per_parameter: int
    floats_per_row: int
    warmup_steps: int = 0


# Adagrad's accumulators start near zero, as in PyTorch. Keras starts them at 0.1, far above the
# squared gradients that a row gets from a mean loss over a batch, and rows then hardly move: on the
# validation part of a Criteo excerpt (94,038 training rows, DLRM, full tables, one epoch) the best
# of the rates 0.01 to 0.4 reached a loss of 0.503, against 0.484 with the choice here.
_ADAGRAD = {"initial_accumulator_value": 1e-8}

_CHOICES = {
    "sgd": _Choice("SGD", {}, 0.1, 0, 0),
    "adagrad": _Choice("Adagrad", _ADAGRAD, 0.02, 1, 0, warmup_steps=100),
    "rowwise_adagrad": _Choice("RowWiseAdagrad", _ADAGRAD, 0.02, 0, 1, warmup_steps=100),
    "adam": _Choice("Adam", {}, 0.001, 2, 1),
    "amsgrad": _Choice("AMSGrad", {}, 0.001, 3, 1),
    "lazy_adam": _Choice("LazyAdam", {}, 0.001, 2, 0),
    "lazy_amsgrad": _Choice("LazyAdam", {"amsgrad": True}, 0.001, 3, 0),
}

NAMES: tuple[str, ...] = tuple(_CHOICES)
DEFAULT_LEARNING_RATES: dict[str, float] = {
    name: choice.learning_rate for name, choice in _CHOICES.items()
}
DEFAULT_WARMUP_STEPS: dict[str, int] = {
    name: choice.warmup_steps for name, choice in _CHOICES.items()
}


def get(name: str, learning_rate: Any = None, *, warmup_steps: int = 0, **options: Any) -> Any:
    """Makes the optimiser of a name.

    Args:
        name: One of `NAMES`.
        learning_rate: Float or schedule; None takes `DEFAULT_LEARNING_RATES[name]`.
        warmup_steps: Steps over which a learning rate that is a number, or the default, is
            reached, in equal parts. `DEFAULT_WARMUP_STEPS` has what the training program takes.
        **options: Further arguments of the class, such as `clipnorm`.

    Raises:
        ValueError: The name is unknown, or `warmup_steps` is asked for with a schedule.
    """
    choice = _choice(name)
    cls = getattr(import_module("tf_compemb.optimizers"), choice.class_name)
    rate = choice.learning_rate if learning_rate is None else learning_rate
    if warmup_steps:
        rate = _warmed_up(rate, warmup_steps)
    return cls(learning_rate=rate, **{**choice.options, **options})


def _warmed_up(rate: float, steps: int) -> Any:
    from tf_compemb._keras import keras

    if not isinstance(rate, numbers.Real):
        raise ValueError(
            "`warmup_steps` needs a `learning_rate` that is a number; a schedule says itself how "
            f"it begins. Received: learning_rate={rate!r}, warmup_steps={steps}"
        )
    return keras.optimizers.schedules.PolynomialDecay(rate / steps, steps, rate)


def slots_per_parameter(name: str, width: int) -> float:
    """Float32 numbers of optimiser state for each parameter of a table, once in memory.

    Exact Adam and AMSGrad keep one row more, and a history of steps: see `README.md`.

    Args:
        name: One of `NAMES`.
        width: Numbers in a row of the table.

    Raises:
        ValueError: The name is unknown.

    >>> slots_per_parameter("adagrad", 16), slots_per_parameter("rowwise_adagrad", 16)
    (1.0, 0.0625)
    """
    choice = _choice(name)
    return choice.floats_per_parameter + choice.floats_per_row / width


def _choice(name: str) -> _Choice:
    if name not in _CHOICES:
        raise ValueError(f"Unknown optimizer {name!r}. Use one of: {', '.join(NAMES)}.")
    return _CHOICES[name]
