"""Says what to do where an object of Keras 3 meets tf_keras, or the other way round."""

from __future__ import annotations

from tf_compemb._keras import LEGACY

_OURS, _OTHER = ("tf_keras", "Keras 3") if LEGACY else ("Keras 3", "tf_keras")
_OTHER_MODULE = "keras" if LEGACY else "tf_keras"
REMEDY = (
    "unset TF_USE_LEGACY_KERAS, or build the model with tf_keras"
    if LEGACY
    else "set TF_USE_LEGACY_KERAS=1 in the environment before Python starts, or build the model "
    "with keras"
)


def check_loading(name: str, keras: str) -> None:
    """Checks that the Keras that loads a file is the one of this process's layers.

    Raises:
        ValueError: It is the other one.
    """
    if keras == _OTHER_MODULE:
        raise ValueError(
            f"{_OTHER} loads a model with {name}, which is of {_OURS} in this process: {REMEDY}."
        )
