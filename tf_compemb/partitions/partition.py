"""The kinds of partition: digits of an id, stored codes, functions, universal hashes."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np

from tf_compemb.arguments import integer, positive_integer, shown
from tf_compemb.partitions.universal_hash import draw_coefficients, universal_hash


def ceil_div(n: int, m: int) -> int:
    """The smallest integer not below n / m, in exact integer arithmetic."""
    return -(-n // m)


class Partition:
    """A map from ids to classes. Subclasses say how many classes, and which one an id is in."""

    def num_classes(self, input_dim: int) -> int:
        """Number of classes when ids are in `[0, input_dim)`."""
        raise NotImplementedError

    def classes(self, ids: Any, input_dim: int) -> Any:
        """The class of each id.

        Args:
            ids: Integer tensor or NumPy array of any shape, values in `[0, input_dim)`.
            input_dim: Number of ids.

        Returns:
            Integers of the same shape, in `[0, num_classes(input_dim))`.
        """
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """What `deserialize` needs to make this partition again, JSON-compatible."""
        return {"kind": type(self).__name__}

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Partition) and self.get_config() == other.get_config()

    def __hash__(self) -> int:
        return hash(str(self.get_config()))

    def __repr__(self) -> str:
        config = self.get_config()
        arguments = ", ".join(f"{k}={v!r}" for k, v in config.items() if k != "kind")
        return f"{config['kind']}({arguments})"


class Digit(Partition):
    """`(x // divisor) mod modulus`: one digit of the id. Every arithmetic partition is one.

    Args:
        divisor: Positive integer.
        modulus: Positive integer, the number of classes.

    >>> Digit(divisor=5, modulus=4).classes(np.array([73]), 100)
    array([2])
    """

    def __init__(self, divisor: int, modulus: int) -> None:
        self._divisor = positive_integer("divisor", divisor)
        self._modulus = positive_integer("modulus", modulus)

    def divisor(self, input_dim: int) -> int:
        """By what the id is divided first."""
        return self._divisor

    def num_classes(self, input_dim: int) -> int:
        """The modulus."""
        return self._modulus

    def classes(self, ids: Any, input_dim: int) -> Any:
        """`(ids // divisor) mod modulus`; steps that change nothing are left out."""
        divisor, modulus = self.divisor(input_dim), self.num_classes(input_dim)
        digits = ids if divisor == 1 else ids // divisor
        return digits if divisor * modulus >= input_dim else digits % modulus

    def get_config(self) -> dict[str, Any]:
        """The divisor and the modulus."""
        return {"kind": "Digit", "divisor": self._divisor, "modulus": self._modulus}


class Naive(Digit):
    """Every id its own class: the full table (section 3.1, partition 1).

    >>> Naive().num_classes(10)
    10
    """

    def __init__(self) -> None:
        super().__init__(1, 1)

    def num_classes(self, input_dim: int) -> int:
        """As many classes as ids."""
        return input_dim

    def get_config(self) -> dict[str, Any]:
        """Nothing but the kind."""
        return {"kind": "Naive"}


class Quotient(Digit):
    """`x // modulus`: neighbouring ids share a class (section 3.1, partition 2).

    Args:
        modulus: Positive integer, how many ids share a class.

    >>> Quotient(4).classes(np.array([0, 3, 4, 9]), 10)
    array([0, 0, 1, 2])
    """

    def __init__(self, modulus: int) -> None:
        super().__init__(positive_integer("modulus", modulus), 1)

    def num_classes(self, input_dim: int) -> int:
        """`ceil(input_dim / modulus)`."""
        return ceil_div(input_dim, self._divisor)

    def get_config(self) -> dict[str, Any]:
        """The modulus."""
        return {"kind": "Quotient", "modulus": self._divisor}


class Remainder(Digit):
    """`x mod modulus`: ids a multiple of the modulus apart share a class (section 3.1).

    Args:
        modulus: Positive integer, the number of classes.

    >>> Remainder(4).classes(np.array([0, 3, 4, 9]), 10)
    array([0, 3, 0, 1])
    """

    def __init__(self, modulus: int) -> None:
        super().__init__(1, positive_integer("modulus", modulus))

    def get_config(self) -> dict[str, Any]:
        """The modulus."""
        return {"kind": "Remainder", "modulus": self._modulus}


class Codes(Partition):
    """A stored class for each id: brand, year, model.

    The layer keeps the codes as an untrained variable, in the narrowest integer type.

    Args:
        codes: Integers of shape (input_dim,), class of each id; classes are 0..max.

    Raises:
        ValueError: The codes are not a vector of non-negative integers.

    >>> Codes([0, 0, 1, 2]).num_classes(4)
    3
    """

    def __init__(self, codes: Any) -> None:
        array = np.asarray(codes)
        if array.ndim != 1 or array.size == 0 or array.dtype.kind not in "iu" or array.min() < 0:
            raise ValueError(
                "`codes` must be a vector of integers >= 0, one for each id. "
                f"Received: shape {array.shape}, dtype {array.dtype}"
            )
        self.codes = array.astype(np.int64)

    def num_classes(self, input_dim: int) -> int:
        """The largest code plus one.

        Raises:
            ValueError: There is not one code for each id.
        """
        if self.codes.size != input_dim:
            raise ValueError(
                f"`codes` must have one entry for each of the {input_dim} ids. "
                f"Received: {self.codes.size} entries"
            )
        return int(self.codes.max()) + 1

    def classes(self, ids: Any, input_dim: int) -> np.ndarray:
        """The codes of NumPy ids; a layer reads them from its own variable instead."""
        return self.codes[ids]

    def get_config(self) -> dict[str, Any]:
        """The codes, compressed, as text."""
        packed = zlib.compress(self.codes.astype("<i8").tobytes())
        return {"kind": "Codes", "codes": base64.b64encode(packed).decode("ascii")}

    def __repr__(self) -> str:
        return f"Codes({self.codes.size} ids, {int(self.codes.max()) + 1} classes)"


class Function(Partition):
    """Any function of the ids.

    Args:
        function: Takes an integer tensor or NumPy array of ids and returns their classes, by
            arithmetic that works on both. To save a model that has it, register it with
            `keras.saving.register_keras_serializable`.
        num_classes: Number of classes.

    >>> Function(lambda ids: ids % 10 // 2, num_classes=5).classes(np.array([27]), 100)
    array([3])
    """

    def __init__(self, function: Callable[[Any], Any], num_classes: int) -> None:
        if not callable(function):
            raise ValueError(f"`function` must be callable. Received: {function!r}")
        self.function = function
        self._num_classes = positive_integer("num_classes", num_classes)

    def num_classes(self, input_dim: int) -> int:
        """The number given."""
        return self._num_classes

    def classes(self, ids: Any, input_dim: int) -> Any:
        """The function's value."""
        return self.function(ids)

    def get_config(self) -> dict[str, Any]:
        """The registered name of the function.

        Raises:
            ValueError: The function is not registered with Keras, so no file may name it.
        """
        from tf_compemb._keras import keras

        name = keras.saving.get_registered_name(self.function)
        if keras.saving.get_registered_object(name) is not self.function:
            raise ValueError(
                f"The partition function {self.function!r} cannot be saved, because it is not "
                "registered. Decorate it with @keras.saving.register_keras_serializable()."
            )
        return {"kind": "Function", "function": name, "num_classes": self._num_classes}

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Function)
            and self.function is other.function
            and self._num_classes == other._num_classes
        )

    def __hash__(self) -> int:
        return hash((self.function, self._num_classes))

    def __repr__(self) -> str:
        return f"Function({self.function!r}, num_classes={self._num_classes})"


class UniversalHash(Partition):
    """A random function of a universal family: `((a x + b) mod P) mod num_classes`.

    P = 2**31 - 1; ids above 30 bits are hashed in two parts. The coefficients follow from the
    seed, so nothing is stored. No set of these is complementary.

    Args:
        num_classes: Number of buckets.
        seed: Integer; the same seed gives the same function on every machine and runtime.
    """

    def __init__(self, num_classes: int, seed: int = 0) -> None:
        self._num_classes = positive_integer("num_classes", num_classes)
        self.seed = integer("seed", seed)
        self.coefficients = draw_coefficients(self.seed)

    def num_classes(self, input_dim: int) -> int:
        """The number of buckets."""
        return self._num_classes

    def classes(self, ids: Any, input_dim: int) -> Any:
        """The bucket of each id, exact in 32-bit and in 64-bit integers."""
        return universal_hash(ids, self.coefficients, input_dim) % self._num_classes

    def get_config(self) -> dict[str, Any]:
        """The number of buckets and the seed."""
        return {"kind": "UniversalHash", "num_classes": self._num_classes, "seed": self.seed}


_KINDS = {c.__name__: c for c in (Digit, Naive, Quotient, Remainder, UniversalHash)}


def deserialize(config: dict[str, Any] | Partition) -> Partition:
    """A partition from what its `get_config` returned.

    Raises:
        ValueError: The configuration is not one of a partition.
    """
    if isinstance(config, Partition):
        return config
    kind = config.get("kind") if isinstance(config, dict) else None
    makers = {**_KINDS, "Codes": _unpacked_codes, "Function": _registered_function}
    if not isinstance(kind, str) or kind not in makers:
        raise ValueError(f"Not a partition: {shown(config)}. Kinds: {', '.join(sorted(makers))}.")
    try:
        return makers[kind](**{name: value for name, value in config.items() if name != "kind"})
    except TypeError as error:
        raise ValueError(f"Not a partition: {shown(config)}. {error}") from error


def partition_list(name: str, values: Any) -> list[Partition]:
    """Partitions of a list of them or of their configurations.

    Args:
        name: Of the argument that holds them.
        values: The argument.

    Raises:
        ValueError: It is no such list; the message names the argument.
    """
    if not isinstance(values, (list, tuple)) or not all(
        isinstance(value, (Partition, dict)) for value in values
    ):
        raise ValueError(
            f"`{name}` must be a list of partitions from tf_compemb.partitions. "
            f"Received: {name}={shown(values)}"
        )
    return [deserialize(value) for value in values]


def _unpacked_codes(codes: str) -> Codes:
    packed = zlib.decompress(base64.b64decode(codes))
    return Codes(np.frombuffer(packed, "<i8"))


def _registered_function(function: str, num_classes: int) -> Function:
    from tf_compemb._keras import keras

    found = keras.saving.get_registered_object(function)
    if found is None:
        raise ValueError(
            f"The partition function {function!r} is not registered. Import the module that "
            "defines and registers it before loading the model."
        )
    return Function(found, num_classes)
