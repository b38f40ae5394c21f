"""What to do where an object of Keras 3 meets a model of tf_keras, or the other way round.

A process has its layers and optimisers of one Keras. The other one would refuse them without
saying why, or not see their weights: they would never be trained.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from types import FrameType
from typing import Any

_NAMES = {"keras": "Keras 3", "tf_keras": "tf_keras"}


class OtherKeras:
    """The Keras that this process's layers are not of.

    Args:
        legacy: Whether the layers are of tf_keras.
    """

    def __init__(self, legacy: bool) -> None:
        self._own, self._other = ("tf_keras", "keras") if legacy else ("keras", "tf_keras")
        self._remedy = (
            "unset TF_USE_LEGACY_KERAS in the environment before Python starts, or use tf_keras "
            "for the model"
            if legacy
            else "set TF_USE_LEGACY_KERAS=1 in the environment before Python starts, or use keras "
            "for the model"
        )

    def check_call(self, layer: Any, *inputs: Any) -> None:
        """Checks that a layer is called with tensors, and in a model, of its own Keras.

        Raises:
            TypeError: They are of the other Keras.
        """
        if sys.modules.get(self._other) and (
            self._is_symbolic(inputs) or self._nearest_owner(layer) == self._other
        ):
            raise TypeError(f"{layer.name}: {self._sentence(layer, 'is called in')}.")

    def described(self, thing: Any) -> str:
        """`repr(thing)`, with what to do while the other Keras formats it for a message."""
        caller = next(_frames_of_kerases(), (None, None))[0]
        if caller != self._other:
            return repr(thing)
        return f"{thing!r} ({self._sentence(thing, 'is given to')})"

    def check_loading(self, name: str, keras: str) -> None:
        """Checks that a file with a class of this package is loaded by the Keras of its classes.

        Raises:
            ValueError: The other one loads it.
        """
        if keras == self._other:
            raise ValueError(
                f"{name} is of {_NAMES[self._own]} in this process, and a model with it is loaded "
                f"by {_NAMES[self._other]}: {self._remedy}."
            )

    def _sentence(self, thing: Any, does: str) -> str:
        return (
            f"{type(thing).__name__} is of {_NAMES[self._own]} in this process, and {does} a "
            f"model of {_NAMES[self._other]}: {self._remedy}"
        )

    def _is_symbolic(self, inputs: Any) -> bool:
        """Whether there is a placeholder of the other Keras among the inputs."""
        if isinstance(inputs, dict):
            inputs = tuple(inputs.values())
        if isinstance(inputs, (tuple, list)):
            return any(map(self._is_symbolic, inputs))
        package = type(inputs).__module__.partition(".")[0]
        return package == self._other and "KerasTensor" in type(inputs).__name__

    def _nearest_owner(self, layer: Any) -> str | None:
        """The Keras of the layer or model that calls a layer, if one does."""
        for package, frame in _frames_of_kerases():
            owner = frame.f_locals.get("self")
            if owner is not layer and isinstance(owner, sys.modules[package].layers.Layer):
                return package
        return None


def _frames_of_kerases() -> Iterator[tuple[str, FrameType]]:
    """The frames of code of either Keras that are being executed, the innermost first."""
    frame = inspect.currentframe()
    while frame is not None:
        package = frame.f_globals.get("__name__", "").partition(".")[0]
        if package in _NAMES and package in sys.modules:
            yield package, frame
        frame = frame.f_back
