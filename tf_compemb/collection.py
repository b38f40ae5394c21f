"""EmbeddingCollection: the fields of a recommender row, each with its own method and size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tf_compemb._keras import (
    LEGACY,
    Layer,
    concrete,
    is_symbolic,
    keras,
    ops,
    register,
    reordered,
    traced_as_written,
    training_phase,
)
from tf_compemb.arguments import flag, mapping, natural_number, one_of, positive_integer
from tf_compemb.field_inputs import (
    check_fields,
    check_matrix,
    ids_in_order,
    is_single,
    weights_by_field,
)
from tf_compemb.field_layers import (
    FieldLayers,
    as_json,
    checked_cardinalities,
    checked_overrides,
    scope_names,
)
from tf_compemb.footprint import Footprint
from tf_compemb.layers import bags
from tf_compemb.layers.base import CompressedEmbedding
from tf_compemb.layers.fused import FusedLookup, vectors_as_products
from tf_compemb.layers.group_lookup import GroupLookup
from tf_compemb.layers.ids import (
    check_integer_type,
    check_placeholder,
    checked_ids,
    poison,
    to_id_tensor,
    type_name,
)
from tf_compemb.layers.pooled import PooledEmbedding, PooledLookup, lookup_groups
from tf_compemb.size_table import size_table
from tf_compemb.storage.field_store import Entry, read_entries, write_entries
from tf_compemb.vector_order import columns, matrix_shape, order_of, vectors_of


@register
class EmbeddingCollection(Layer):
    """Embeddings for all categorical fields of a model, by one specification.

    Args:
        cardinalities: Number of ids of each field: a mapping from the field's name, or a sequence
            (the names are then "field_0", "field_1", ...).
        output_dim: Integer, length of every vector.
        embedding: Name of the method for every field, such as "full", "hash", "qr"; all are in
            the catalogue, `tf_compemb/layers/README.md`.
        threshold: None keeps a field's table full where compression would not make it smaller.
            An integer keeps tables of at most that many rows full, and compresses all others.
        options: The method's own arguments, such as `{"collisions": 4, "operation": "mult"}`.
        overrides: For single fields, by name: a mapping with any of "embedding", "options" and
            "threshold". A field that names another method starts from no options.
        combiner: How bags of ids are pooled: "sum", "mean" or "sqrtn".
        mask_zero: Whether id 0 is padding in padded bags.
        fused: Whether fields of the same method are looked up together. The vectors are the same.
        frequencies: For methods that treat frequent ids apart: a function from a field's name to
            how often training has each id, shape (cardinality,), such as
            `PreparedDataset.frequencies`. What the layers keep of them is saved with the weights
            and is not in the configuration.
        sampled_ids: For methods that need to know which ids occur together: a function from a
            field's name to the ids it has in a sample of training rows, shape (rows,), of the same
            rows for every field. Kept as `frequencies` are.
        **kwargs: Of `keras.layers.Layer`.

    Call arguments:
        inputs: An array of integer ids (batch, fields); or a mapping from field name, or a
            sequence in field order, of ids (batch,) or bags (ragged, sparse, or padded
            (batch, length)).
        weights: None, or for bags a mapping from field name to weights in the form of the ids.

    Returns:
        Vectors (batch, num_vectors, output_dim), in the order of the fields.

    Raises:
        ValueError: An unknown method, option or field; ids out of range as in
            `CompressedEmbedding`.

    >>> collection = EmbeddingCollection({"user": 100_000, "country": 5}, output_dim=8,
    ...                                  embedding="qr", options={"collisions": 100})
    >>> tuple(collection(np.array([[99_999, 4], [17, 0]])).shape)
    (2, 2, 8)
    >>> print(collection.summary())
    field      rows  method  parameters  bytes  ratio
    user     100000  qr            8800  35200   90.9
    country       5  full            40    160    1.0
    total    100005                8840  35360   90.5
    """

    def __init__(
        self,
        cardinalities: Mapping[str, int] | Sequence[int],
        output_dim: int = 16,
        embedding: str = "full",
        *,
        threshold: int | None = None,
        options: Mapping[str, Any] | None = None,
        overrides: Mapping[str, Mapping[str, Any]] | None = None,
        combiner: str = "sum",
        mask_zero: bool = False,
        fused: bool = True,
        frequencies: Callable[[str], Any] | None = None,
        sampled_ids: Callable[[str], Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.cardinalities = checked_cardinalities(cardinalities)
        self.output_dim = positive_integer("output_dim", output_dim)
        self.embedding = embedding
        self.threshold = threshold
        if threshold is not None:
            self.threshold = natural_number("threshold", threshold)
        self.options = {} if options is None else mapping("options", options)
        self.overrides = checked_overrides(overrides, self.cardinalities)
        self.combiner = one_of("combiner", combiner, bags.COMBINERS)
        self.mask_zero = flag("mask_zero", mask_zero)
        self.fused = flag("fused", fused)
        chosen = FieldLayers(
            self.output_dim,
            embedding,
            threshold,
            self.options,
            self.overrides,
            {"frequencies": frequencies, "sampled_ids": sampled_ids},
        )
        dtype = self._dtype_policy if LEGACY else self.dtype_policy
        self._fields = _Fields(
            [
                chosen.of(field, rows, name=name, dtype=dtype)
                for (field, rows), name in zip(
                    self.cardinalities.items(), scope_names(self.cardinalities), strict=True
                )
            ]
        )
        self._make_lookups()
        self._ids_come_as_floats = False

    def _make_lookups(self) -> None:
        """One lookup for each group of fields that fuse, and one for each other field."""
        layers = self._fields.layers
        self._groups = tuple(map(tuple, lookup_groups(layers, self.fused)))
        lookups = []
        for members in self._groups:
            layers = [self._fields.layers[i] for i in members]
            if len(layers) == 1:
                lookups.append(layers[0])
            else:
                dtype = layers[0]._dtype_policy if LEGACY else layers[0].dtype_policy
                kind = PooledLookup if isinstance(layers[0], PooledEmbedding) else FusedLookup
                lookups.append(kind(layers, name=f"fused_{len(lookups)}", dtype=dtype))
            lookups[-1].saved_by_owner = True
        self.lookups = lookups
        counts = [vectors_of(layer) for layer in self._fields.layers]
        self._order = order_of(self._groups, counts)

    @property
    def field_names(self) -> list[str]:
        """Names of the fields, in order."""
        return list(self.cardinalities)

    @property
    def vector_names(self) -> list[str]:
        """What each vector of the result stands for: the field, or "field/partition"."""
        names = []
        for name, layer in zip(self.cardinalities, self._fields.layers, strict=True):
            count = vectors_of(layer)
            names += [name] if count == 1 else [f"{name}/{j}" for j in range(count)]
        return names

    @property
    def num_vectors(self) -> int:
        """Vectors for one row: the fields', or more under operation="feature"."""
        return sum(vectors_of(layer) for layer in self._fields.layers)

    @property
    def methods_of_one_device(self) -> list[str]:
        """Names of its methods that cannot be trained by replicas, which would learn apart."""
        return sorted({x.method_name for x in self._fields.layers if x.needs_one_device})

    def build(self, input_shape: Any = None) -> None:
        """Creates the variables of every field."""
        if self.built:
            return
        for lookup in self.lookups:
            lookup.build_under_its_name()
        self.built = True

    def __call__(self, inputs: Any, weights: Any = None, **kwargs: Any) -> Any:
        """Converts ids and weights exactly, before Keras could convert them to another type."""
        largest = max(self.cardinalities.values())
        inputs = ids_in_order(inputs, self.field_names, self.name)
        weights = weights_by_field(weights, inputs, self.field_names, self.name)
        parts = inputs if isinstance(inputs, list) else [inputs]
        placeholders = [part for part in parts if is_symbolic(part)]
        if placeholders:
            floats = [check_placeholder(part, largest, self.name) for part in placeholders]
            self._ids_come_as_floats = any(floats)
        parts = [to_id_tensor(part, largest, self.name) for part in parts]
        if weights:
            kwargs["weights"] = weights
        return super().__call__(parts if isinstance(inputs, list) else parts[0], **kwargs)

    @traced_as_written
    def call(self, inputs: Any, weights: Any = None, training: Any = None) -> Any:
        """Vectors of a batch. See the class."""
        with training_phase(training):
            return self._embedded(inputs, weights)

    def _embedded(self, inputs: Any, weights: Any) -> Any:
        if not isinstance(inputs, (list, tuple)):
            return self._matrix(inputs)
        names = check_fields(self, inputs, weights or {})
        if all(map(is_single, inputs)):
            return self._matrix(ops.stack(inputs, axis=1))
        vectors = []
        for i, (field, ids) in enumerate(zip(self.cardinalities, inputs, strict=True)):
            combiner = None if is_single(ids) else self.combiner
            part = self._field_bags(i, names[i], ids, (weights or {}).get(field), combiner)
            vectors.append(
                ops.reshape(part, (-1, vectors_of(self._fields.layers[i]), self.output_dim))
            )
        return ops.concatenate(vectors, axis=1)

    def _matrix(self, ids: Any) -> Any:
        """Vectors (batch, num_vectors, output_dim) of ids (batch, fields)."""
        if not self._ids_come_as_floats:
            check_integer_type(type_name(ids), self.name)
        check_matrix(ids, len(self.cardinalities), self.name)
        message = f"{self.name}: the ids of each field must be in [0, its cardinality)."
        # In a graph the compiled kernels check the ids that they read.
        if concrete(ids) is None:
            vectors = vectors_as_products(self.lookups, self._groups, ids, message)
            if vectors is not None:
                return vectors
        ids, valid = checked_ids(ids, list(self.cardinalities.values()), message)
        parts = []
        for members, lookup in zip(self._groups, self.lookups, strict=True):
            own = ids if len(members) == len(self.cardinalities) else columns(ids, members)
            vectors = lookup(own) if isinstance(lookup, GroupLookup) else lookup.lookup(own[:, 0])
            shape = (-1, len(members), *self._fields.layers[members[0]].vector_shape)
            vectors = ops.reshape(vectors, shape)
            vectors = poison(vectors, None if valid is None else columns(valid, members))
            parts.append(ops.reshape(vectors, (-1, *matrix_shape(shape))))
        return self._in_order(parts)

    def _in_order(self, parts: list[Any]) -> Any:
        """The groups' vectors in the order of the fields."""
        if len(parts) == 1:
            return parts[0]
        vectors = ops.concatenate(parts, axis=1)
        return vectors if self._order is None else reordered(vectors, self._order)

    def _field_bags(self, i: int, name: str, ids: Any, weights: Any, combiner: Any) -> Any:
        padding = (lambda x: ops.equal(x, 0)) if self.mask_zero else None
        return bags.embed(
            name, lambda x: self._field_vectors(i, x), ids, weights, combiner, padding
        )

    def field_vectors(self, field: str, ids: Any) -> Any:
        """Vectors of ids of one field.

        Args:
            field: Name of the field.
            ids: Integer ids of any dense shape.

        Returns:
            Vectors, shape of the ids + (output_dim,), or + (k, output_dim) for k features.

        Raises:
            ValueError: There is no such field; an id is out of range.
        """
        if field not in self.cardinalities:
            raise ValueError(f"No field {field!r}. Fields: {', '.join(self.cardinalities)}.")
        self.build()
        ids = to_id_tensor(ids, self.cardinalities[field], self.name)
        return self._field_vectors(self.field_names.index(field), ids)

    def _field_vectors(self, i: int, ids: Any) -> Any:
        layer = self._fields.layers[i]
        field = self.field_names[i]
        check_integer_type(type_name(ids), field)
        message = f"{self.name}: ids of {field} must be in [0, {layer.input_dim})."
        ids, valid = checked_ids(ids, layer.input_dim, message)
        flat = ops.reshape(ids, (-1,))
        group = next(g for g, members in enumerate(self._groups) if i in members)
        lookup = self.lookups[group]
        if isinstance(lookup, GroupLookup):
            vectors = lookup.field_vectors(self._groups[group].index(i), flat)
        else:
            vectors = lookup.lookup(flat)
        return poison(ops.reshape(vectors, (*ops.shape(ids), *layer.vector_shape)), valid)

    def save_own_variables(self, store: Any) -> None:
        """Writes each field's variables as "field/variable", whether fields are fused or not."""
        write_entries(self._stored_variables(), store)

    def load_own_variables(self, store: Any) -> None:
        """Reads each field's variables.

        Raises:
            ValueError: A field's variable is missing, or of another shape.
        """
        read_entries(self._stored_variables(), store, self.name)

    def _stored_variables(self) -> Iterator[Entry]:
        names = self.field_names
        for members, lookup in zip(self._groups, self.lookups, strict=True):
            if isinstance(lookup, GroupLookup):
                for position, i in enumerate(members):
                    for name, variable, start, stop in lookup.field_tables(position):
                        yield f"{names[i]}/{name}", variable, slice(start, stop)
            else:
                for variable in lookup.weights:
                    name = variable.name.split("/")[-1].split(":")[0]
                    yield f"{names[members[0]]}/{name}", variable, slice(None)

    def footprint(self) -> Footprint:
        """Parameters and bytes of all fields together."""
        total = Footprint(0, 0)
        for layer in self._fields.layers:
            total = total + layer.footprint()
        return total

    def field_footprints(self) -> dict[str, tuple[str, Footprint]]:
        """For each field, the name of its method and its footprint."""
        return {
            name: (layer.method_name, layer.footprint())
            for name, layer in zip(self.cardinalities, self._fields.layers, strict=True)
        }

    def summary(self) -> str:
        """A table: field, rows, method, parameters, bytes served, ratio to the full table."""
        fields = {
            name: (self.cardinalities[name], method, size)
            for name, (method, size) in self.field_footprints().items()
        }
        return size_table(fields, self.footprint())

    def compute_output_shape(self, input_shape: Any, weights_shape: Any = None) -> tuple:
        """(batch, num_vectors, output_dim)."""
        first = input_shape[0] if isinstance(input_shape, list) else input_shape
        return (first[0], self.num_vectors, self.output_dim)

    if not LEGACY:

        def compute_output_spec(
            self, inputs: Any, weights: Any = None, training: Any = None
        ) -> Any:
            """Shape and type of the vectors of placeholders, without tracing the lookup."""
            if isinstance(inputs, (list, tuple)):
                check_fields(self, inputs, weights or {})
                first = inputs[0]
            else:
                check_matrix(inputs, len(self.cardinalities), self.name)
                first = inputs
            shape = (first.shape[0], self.num_vectors, self.output_dim)
            return keras.KerasTensor(shape, dtype=self.compute_dtype)

    def get_config(self) -> dict[str, Any]:
        """Arguments of the constructor, JSON-compatible."""
        return {
            **super().get_config(),
            "cardinalities": dict(self.cardinalities),
            "output_dim": self.output_dim,
            "embedding": self.embedding,
            "threshold": self.threshold,
            "options": as_json(self.options),
            "overrides": as_json(self.overrides),
            "combiner": self.combiner,
            "mask_zero": self.mask_zero,
            "fused": self.fused,
        }


class _Fields:
    """The fields' layers, kept from Keras, which would track those that are only specifications."""

    def __init__(self, layers: list[CompressedEmbedding]) -> None:
        self.layers = layers
