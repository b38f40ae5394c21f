"""From a model in memory to a version directory that has been checked."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from tf_compemb._keras import BACKEND, RUNTIME, keras
from tf_compemb.export import signatures
from tf_compemb.export.checks import TOLERANCES, Expectation, check_bytes, check_outputs, expect
from tf_compemb.export.errors import ExportError
from tf_compemb.export.model_card import describe_signatures, write_card
from tf_compemb.export.raw_encoder import RawEncoder, encoder_module
from tf_compemb.export.sample_rows import SampleRows, sample_rows
from tf_compemb.export.served_form import PRECISIONS, ServedForm, sized_layers
from tf_compemb.export.serving_module import ServingModule, SignatureSource
from tf_compemb.export.sizes import ExpectedBytes, expected_bytes
from tf_compemb.export.versions import check_version, partial_version
from tf_compemb.export.warmup import write_warmup

_WARMUP_ROWS = 8


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        numbering: Its encoder: a `RunEncoder`, a `PreparedDataset`, or None.
        data: A `PreparedDataset` whose test rows the export is checked with; None generates rows.
        about: What the model card says of the model's origin.
    """

    numbering: Any | None = None
    data: Any | None = None
    about: Mapping[str, Any] = field(default_factory=dict)


def saved_model(
    model: Any,
    path: str | Path,
    *,
    precision: str = "float32",
    version: int | None = None,
    inputs: Mapping[str, tf.TensorSpec] | None = None,
    source: Source | None = None,
) -> Path:
    """Exports a model as `PATH/VERSION/`, a SavedModel that TF-Serving loads.

    Each table is stored once, in its inference form; there is no optimiser and no metric. The
    result is reopened by TensorFlow's C++ loader and compared with the model, and its bytes with
    the layers' `footprint()`, before it gets its name. A `ClickModel` has the signatures
    `serving_default` (`dense`, `categorical`), `raw` (`integers`, `categories`; with an encoder)
    and `embeddings_FIELD` (`ids`); any other model has `serving_default` with its own inputs.

    Args:
        model: A built model of tf_keras, or of Keras 3 on TensorFlow; with our layers in it.
        path: The model's directory; its name is the model's.
        precision: "float32"; or "float16" or "bfloat16", in which tables are stored. Their rows
            are cast to float32 when they have been read.
        version: Number of the version; None for one more than the highest.
        inputs: Type and shape of each input by name, for a model that does not say it itself.
        source: Encoder, rows to check with, and what the model card tells; None for none.

    Returns:
        The directory of the version.

    Raises:
        ExportError: The model cannot be exported, or the result is not what it should be. Nothing
            is published then.

    >>> from tf_compemb import layers
    >>> model = keras.Sequential(
    ...     [keras.Input((2,), dtype="int64", name="ids"), layers.QREmbedding(1000, 4)])
    >>> exported = saved_model(model, tempfile.mkdtemp() + "/items")
    >>> exported.name, sorted(p.name for p in exported.iterdir() if p.suffix in (".pb", ".json"))
    ('1', ['fingerprint.pb', 'model_card.json', 'saved_model.pb'])
    """
    check_arguments(model, precision)
    base, source = Path(path), source or Source()
    check_version(base, version)
    with (
        tempfile.TemporaryDirectory() as scratch,
        partial_version(base) as (folder, publish),
    ):
        plan = make_plan(model, source, inputs, Path(scratch))
        expectations = plan.expectations()
        with served_module(plan, precision) as (module, expected, embedding_names):
            module.save(folder)
        check_bytes(folder, expected, embedding_names)
        tolerance = tolerance_of(model, precision)
        differences = check_outputs(folder, expectations, tolerance)
        write_warmup(folder, base.name, plan.warmup())
        details = {
            "format": "savedmodel",
            "precision": precision,
            "signatures": describe_signatures(plan.sources),
            "check": {
                "rows": plan.rows_source,
                "largest_differences": differences,
                "tolerance": tolerance,
            },
        }
        write_card(folder, model, expected, details, source.about)
        return publish(version)


def check_arguments(model: Any, precision: str) -> None:
    """Raises if a model cannot be exported, or the precision is none.

    Raises:
        ExportError: The message says what to do.
    """
    if BACKEND != "tensorflow":
        raise ExportError(
            f"A SavedModel is TensorFlow's, and Keras runs on {BACKEND}: save the model, and "
            "export it in a process with KERAS_BACKEND=tensorflow."
        )
    if precision not in PRECISIONS:
        raise ExportError(f"`precision` must be one of {', '.join(PRECISIONS)}, not {precision!r}.")
    if not isinstance(model, keras.Model):
        raise ExportError(
            f"`model` must be a model of the Keras that is in use ({RUNTIME}), not "
            f"{type(model).__module__}.{type(model).__name__}."
        )
    if not model.built:
        raise ExportError("The model has no weights yet: call it once, or train it, before export.")


@dataclass(frozen=True)
class Plan:
    """What is exported of a model, and what it is checked with.

    Attributes:
        model: The model.
        sources: Its signatures.
        encoder: The raw signature's encoder.
        rows: Rows for a click model.
        inputs: Values for any other model.
    """

    model: Any
    sources: Mapping[str, SignatureSource]
    encoder: RawEncoder | None
    rows: SampleRows | None
    inputs: Mapping[str, np.ndarray]

    @property
    def rows_source(self) -> str:
        """What the export is checked with, for people to read."""
        return "64 generated rows" if self.rows is None else self.rows.source

    def expectations(self) -> list[Expectation]:
        """What the model gives now, for each signature."""
        default = self.sources[signatures.DEFAULT]
        if self.rows is None:
            return [expect(signatures.DEFAULT, default, self.inputs)]
        found = [expect(signatures.DEFAULT, default, self.rows.features)]
        if self.encoder is not None:
            encoded = self.rows.encoded or {}
            found.append(expect(signatures.RAW, default, encoded, self.rows.raw))
        columns = self.rows.features["categorical"].T
        names = [name for name in self.sources if name.startswith("embeddings_")]
        return found + [
            expect(name, self.sources[name], {"ids": ids})
            for name, ids in zip(names, columns, strict=False)
        ]

    def warmup(self) -> list[tuple[str, Mapping[str, np.ndarray]]]:
        """A request for each signature that predicts."""
        given: dict[str, Any] = {signatures.DEFAULT: self.inputs}
        if self.rows is not None:
            given = {signatures.DEFAULT: self.rows.features}
            if self.rows.raw is not None:
                given[signatures.RAW] = self.rows.raw
        return [
            (name, {key: _typed(self.sources[name], key, v[:_WARMUP_ROWS]) for key, v in x.items()})
            for name, x in given.items()
        ]


def _typed(source: SignatureSource, name: str, values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=source.inputs[name].dtype.as_numpy_dtype)


def make_plan(
    model: Any, source: Source, inputs: Mapping[str, tf.TensorSpec] | None, scratch: Path
) -> Plan:
    """The signatures of a model, and rows to check them with.

    Args:
        model: The model.
        source: See `saved_model`.
        inputs: See `saved_model`.
        scratch: A directory for vocabularies as text.
    """
    if not signatures.is_click_model(model):
        sources = signatures.model_signatures(model, inputs)
        values = _generated_inputs(model, sources[signatures.DEFAULT])
        return Plan(model, sources, None, None, values)
    encoder = None if source.numbering is None else encoder_module(source.numbering, scratch)
    cardinalities = model.embeddings.cardinalities
    if isinstance(cardinalities, Mapping):
        cardinalities = list(cardinalities.values())
    if source.numbering is not None:
        _check_cardinalities(source.numbering, cardinalities)
    rows = sample_rows(cardinalities, model.dense_features, source.numbering, source.data)
    return Plan(model, signatures.click_signatures(model, encoder), encoder, rows, {})


def _check_cardinalities(numbering: Any, cardinalities: list[int]) -> None:
    if list(numbering.manifest["cardinalities"]) != list(cardinalities):
        raise ExportError(
            "The encoder numbers other categories than the model has: its fields have "
            f"{list(numbering.manifest['cardinalities'])} ids, the model's {list(cardinalities)}."
        )


def _generated_inputs(model: Any, source: SignatureSource, rows: int = 64) -> dict[str, np.ndarray]:
    """Ids that every embedding knows, and floats."""
    rng = np.random.default_rng(0)
    dims = [n for layer in sized_layers(model) for n in input_dims(layer)]
    values = {}
    for name, spec in source.inputs.items():
        shape = [rows, *(3 if n is None else n for n in spec.shape[1:])]
        if spec.dtype.is_integer:
            values[name] = rng.integers(0, min(dims, default=2), shape)
        elif spec.dtype == tf.string:
            values[name] = np.full(shape, "", dtype=object)
        else:
            values[name] = rng.normal(size=shape).astype(spec.dtype.as_numpy_dtype)
    return {name: _typed(source, name, array) for name, array in values.items()}


def input_dims(layer: Any) -> list[int]:
    """How many ids an embedding, or each field of a collection, has."""
    return (
        list(layer.cardinalities.values()) if hasattr(layer, "cardinalities") else [layer.input_dim]
    )


@contextlib.contextmanager
def served_module(
    plan: Plan, precision: str
) -> Iterator[tuple[ServingModule, ExpectedBytes, set[str]]]:
    """A plan's traced module, what it should store, and the names of its embeddings' variables."""
    resources = signatures.lookup_tables(plan.model)
    resources += [] if plan.encoder is None else [plan.encoder]
    with ServedForm(plan.model, precision) as form:
        module = ServingModule(plan.sources, form.variables, resources)
        network = [v for n, v in module.weights.items() if n not in form.embedding_names]
        expected = expected_bytes(
            sized_layers(plan.model), form.table_numbers, PRECISIONS[precision].size, network
        )
        yield module, expected, form.embedding_names


def tolerance_of(model: Any, precision: str) -> float:
    """That of the type with the fewest bits, among the tables' and those of the computations."""
    used = {precision, *(getattr(x, "compute_dtype", None) for x in model._flatten_layers())}
    return max(TOLERANCES[name] for name in used & set(TOLERANCES))
