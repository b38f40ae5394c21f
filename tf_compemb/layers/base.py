"""The layer contract: what a compressed embedding is, and all that is not the method."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tf_compemb._keras import (
    LEGACY,
    Layer,
    is_symbolic,
    keras,
    ops,
    traced_as_written,
    training_phase,
)
from tf_compemb.arguments import flag, positive_integer, shown
from tf_compemb.footprint import Footprint
from tf_compemb.layers import bags
from tf_compemb.layers.bag_forms import check_forms, is_ragged, to_weight_tensor
from tf_compemb.layers.budget import Settings, only, within_budget
from tf_compemb.layers.ids import (
    check_id_space,
    check_integer_type,
    check_placeholder,
    checked_ids,
    poison,
    to_id_tensor,
    type_name,
)
from tf_compemb.storage.table import Spec, TableSpec, read_rows


class CompressedEmbedding(Layer):
    """Base of every method: a drop-in for `keras.layers.Embedding` that says what it weighs.

    A method says which tables it wants (`table_specs`), what it trains beside them
    (`weight_shapes`), and how an id becomes a vector (`lookup`). Sizes, initialisation, checks of
    ids, bags, masks, shapes, saving and the inference form follow from that.

    Args:
        input_dim: Integer, ids are in `[0, input_dim)`.
        output_dim: Integer, length of a vector.
        combiner: None, or how the innermost axis of the ids is pooled: "sum", "mean", "sqrtn".
        mask_zero: Whether id 0 is padding: masked for the layers after, and left out of bags.
        embeddings_initializer: None draws every table so that the *vectors* have the variance of
            a full table drawn from U(-1/sqrt(input_dim), 1/sqrt(input_dim)); otherwise a Keras
            initialiser for every table.
        **kwargs: Of `keras.layers.Layer`: `name`, `dtype`, `trainable`.

    Call arguments:
        inputs: Integer ids of any shape; a tf.RaggedTensor; or, with a combiner, a tf.SparseTensor
            of shape (batch, length).
        weights: None, or, with a combiner, a weight for each id: of the form and shape of
            `inputs`, and with its row lengths or indices.

    Returns:
        Vectors, shape `inputs.shape + (output_dim,)`; with a combiner `inputs.shape[:-1] +
        (output_dim,)`.

    Raises:
        TypeError: Ids that are not integers.
        ValueError: Arguments out of range; forms or shapes that do not go together; eagerly, ids
            outside `[0, input_dim)` and weights that stand elsewhere than the ids. What only the
            run of a TensorFlow graph can tell is an `InvalidArgumentError` there; under JAX's
            `jit`, where nothing can raise, the vectors of wrong ids are NaN.
    """

    method_name = ""
    # Whether the constructor takes `frequencies`, how often training has each id.
    needs_frequencies = False
    # Whether it takes `sampled_ids`, the ids that the field has in a sample of training rows.
    needs_sampled_ids = False
    # Whether training must be on one device, without replicas.
    needs_one_device = False
    # Whether a full table of the same width is larger than what is served.
    compresses = True

    def __new__(cls, *args: Any, **kwargs: Any) -> Any:
        """Refuses an initialiser as the third argument, which it is in Keras' own layer."""
        if len(args) > 2 and _looks_like_initializer(args[2]):
            raise TypeError(
                f"{cls.__name__}: the third argument is not the initialiser, as it is in "
                "keras.layers.Embedding. Pass it by name: "
                f"embeddings_initializer={shown(args[2])}"
            )
        return super().__new__(cls, *args, **kwargs)

    def __init__(
        self,
        input_dim: int,
        output_dim: int,
        *,
        combiner: str | None = None,
        mask_zero: bool = False,
        embeddings_initializer: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.input_dim = positive_integer("input_dim", input_dim)
        self.output_dim = positive_integer("output_dim", output_dim)
        check_id_space(self.input_dim)
        bags.check_combiner(combiner)
        self.combiner = combiner
        self.mask_zero = flag("mask_zero", mask_zero)
        self.supports_masking = self.mask_zero
        self.embeddings_initializer = _initializer(embeddings_initializer)
        self._ids_come_as_floats = False

    # What a method says of itself.

    def table_specs(self) -> dict[str, Spec]:
        """The tables of this method, and what it keeps beside them and does not train.

        By the name of the attribute that will hold each.
        """
        raise NotImplementedError

    def weight_shapes(self) -> dict[str, tuple[tuple[int, ...], Any]]:
        """Trained weights that are not tables: name to (shape, initialiser)."""
        return {}

    def lookup(self, ids: Any) -> Any:
        """The paper's formula: ids `(m,)`, in range, to vectors `(m, *vector_shape)`."""
        raise NotImplementedError

    def for_inference(self) -> CompressedEmbedding:
        """The layer that is exported and served, with the same vectors. By default this one."""
        return self

    @classmethod
    def budget_grid(
        cls, input_dim: int, output_dim: int, options: Mapping[str, Any]
    ) -> Iterable[Settings]:
        """What `for_budget` chooses from, the best first. By default there is no choice.

        Args:
            input_dim: As of the constructor.
            output_dim: As of the constructor.
            options: Arguments that the caller has fixed; they replace those of the grid.
        """
        return [only({})]

    def start_from(self, table: np.ndarray) -> None:
        """Gives the layer, which is built, weights whose vectors are near the rows of `table`.

        Args:
            table: Float32 array (input_dim, output_dim).
        """
        raise NotImplementedError(f"{type(self).__name__} cannot start from a trained table.")

    # What the base does for every method.

    @classmethod
    def for_budget(
        cls, input_dim: int, output_dim: int, bytes: int, **options: Any
    ) -> dict[str, Any]:
        """Arguments with which the served layer is the largest within a number of bytes.

        Args:
            input_dim: As of the constructor.
            output_dim: As of the constructor.
            bytes: At most so many for all that is served, `footprint().inference_bytes`.
            **options: Arguments of the constructor that are fixed.

        Returns:
            Arguments of the constructor beside the two dimensions, with `options` among them.

        Raises:
            ValueError: The method needs more; the message says how many bytes.
        """
        dims = (
            positive_integer("input_dim", input_dim),
            positive_integer("output_dim", output_dim),
        )
        # Who says how many ids share a row has said the size.
        grid = [only({})] if "collisions" in options else cls.budget_grid(*dims, options)
        return within_budget(cls, dims, bytes, grid, options)

    @classmethod
    def from_table(cls, table: Any, **options: Any) -> Any:
        """A built layer whose vectors are as near to a trained table as the method says.

        Args:
            table: Array (input_dim, output_dim).
            **options: Arguments of the constructor.

        Raises:
            NotImplementedError: The method has no way to start from a table.
            ValueError: `table` is not a table.
        """
        array = np.asarray(table, dtype="float32")
        if array.ndim != 2:
            raise ValueError(
                f"`table` must have shape (input_dim, output_dim). Received: shape {array.shape}"
            )
        layer = cls(*array.shape, **options)
        layer.build()
        layer.start_from(array)
        return layer

    @property
    def vector_shape(self) -> tuple[int, ...]:
        """Shape of what stands for one id: (output_dim,), or (k, output_dim) for k features."""
        return (self.output_dim,)

    @property
    def limit(self) -> float:
        """Bound of the uniform law of the full table, 1/sqrt(input_dim)."""
        return 1 / math.sqrt(self.input_dim)

    def build(self, input_shape: Any = None) -> None:
        """Creates the variables."""
        if self.built:
            return
        for name, spec in self.table_specs().items():
            if isinstance(spec, TableSpec):
                setattr(self, name, spec.build(self, name, self.embeddings_initializer))
            else:
                setattr(self, name, spec.build(self, name))
        for name, (shape, initializer) in self.weight_shapes().items():
            weight = self.add_exact_weight(name, shape, initializer, "float32", trainable=True)
            setattr(self, name, weight)
        self.built = True

    def footprint(self) -> Footprint:
        """Parameters and bytes, from the hyper-parameters alone."""
        specs = self.table_specs().values()
        tables = [s for s in specs if isinstance(s, TableSpec)]
        others = sum(math.prod(shape) for shape, _ in self.weight_shapes().values())
        weight_bytes = sum(t.bytes for t in tables) + 4 * others
        index_bytes = sum(s.bytes for s in specs if not isinstance(s, TableSpec))
        return Footprint(
            parameters=sum(t.parameters for t in tables) + others,
            weight_bytes=weight_bytes,
            index_bytes=index_bytes,
            inference_bytes=weight_bytes + index_bytes,
            full_parameters=self.input_dim * self.output_dim,
        )

    def rows(self, name: str, ids: Any) -> Any:
        """Rows `ids` of the table `name`, in the layer's compute type."""
        return read_rows(getattr(self, name), ids, self.compute_dtype)

    def __call__(self, inputs: Any, weights: Any = None, **kwargs: Any) -> Any:
        """Converts ids and weights exactly, before Keras could convert them to another type."""
        if is_symbolic(inputs):
            self._ids_come_as_floats = check_placeholder(inputs, self.input_dim, self.name)
        inputs = to_id_tensor(inputs, self.input_dim, self.name)
        if weights is not None:
            kwargs["weights"] = to_weight_tensor(weights, self.name)
        return super().__call__(inputs, **kwargs)

    @traced_as_written
    def call(self, inputs: Any, weights: Any = None, training: Any = None) -> Any:
        """Vectors of ids in any form. See the class."""
        if not self._ids_come_as_floats:
            check_integer_type(type_name(inputs), self.name)
        padding = self._is_padding if self.mask_zero else None
        with training_phase(training):
            return bags.embed(self.name, self.vectors, inputs, weights, self.combiner, padding)

    def vectors(self, ids: Any) -> Any:
        """Vectors of dense ids of any shape, each id checked to be in range."""
        message = f"{self.name}: ids must be in [0, {self.input_dim})."
        ids, valid = checked_ids(ids, self.input_dim, message)
        flat = ops.reshape(ids, (-1,))
        vectors = self.lookup(flat)
        vectors = ops.reshape(vectors, (*ops.shape(ids), *self.vector_shape))
        return poison(vectors, valid)

    def _is_padding(self, ids: Any) -> Any:
        return ops.equal(ids, 0)

    def compute_mask(self, inputs: Any, mask: Any = None) -> Any:
        """True where an id is not padding, if `mask_zero`."""
        if not self.mask_zero or self.combiner is not None or is_ragged(inputs):
            return None
        return ops.not_equal(inputs, 0)

    def compute_output_shape(self, input_shape: Any, weights_shape: Any = None) -> tuple:
        """Shape of the vectors, see the class."""
        shape = tuple(input_shape)
        return (*(shape if self.combiner is None else shape[:-1]), *self.vector_shape)

    if not LEGACY:

        def compute_output_spec(
            self, inputs: Any, weights: Any = None, training: Any = None
        ) -> Any:
            """Shape and type of the vectors of a placeholder, without tracing the lookup."""
            check_forms(self.name, inputs, weights, self.combiner)
            ragged = is_ragged(inputs) and self.combiner is None
            return keras.KerasTensor(
                self.compute_output_shape(inputs.shape),
                dtype=self.compute_dtype,
                **({"ragged": True} if ragged else {}),
            )

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        initializer = self.embeddings_initializer
        return {
            **super().get_config(),
            "input_dim": self.input_dim,
            "output_dim": self.output_dim,
            "combiner": self.combiner,
            "mask_zero": self.mask_zero,
            "embeddings_initializer": (
                None if initializer is None else keras.initializers.serialize(initializer)
            ),
        }


def _looks_like_initializer(value: Any) -> bool:
    """Whether a value can be an initialiser and no other third argument of any method."""
    if isinstance(value, Mapping):
        return "class_name" in value
    return isinstance(value, str) or callable(value)


def _initializer(value: Any) -> Any:
    """None, or the Keras initialiser that a name, a configuration or a function stands for.

    Raises:
        ValueError: It stands for none.
    """
    if value is None:
        return None
    try:
        return keras.initializers.get(value)
    except (AttributeError, TypeError, ValueError) as error:
        raise ValueError(
            "`embeddings_initializer` must be None or a Keras initialiser, such as 'uniform'. "
            f"Received: embeddings_initializer={shown(value)}"
        ) from error
