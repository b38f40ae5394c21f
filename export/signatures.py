"""Which signatures a model is served by, with fixed names and types."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from tf_compemb._keras import traced_for_lite
from tf_compemb.collection import EmbeddingCollection
from tf_compemb.export.errors import ExportError
from tf_compemb.export.raw_encoder import RawEncoder
from tf_compemb.export.refusals import check_all
from tf_compemb.export.serving_module import SignatureSource

DEFAULT = "serving_default"
RAW = "raw"
# Names that Keras makes up, and that differ from process to process.
_MADE_UP = re.compile(r"(keras_tensor|input|args)(_\d+)?")


def is_click_model(model: Any) -> bool:
    """Whether a model takes `dense` and `categorical` features and gives logits."""
    return hasattr(model, "dense_features") and hasattr(model, "embeddings")


def click_signatures(model: Any, encoder: RawEncoder | None) -> dict[str, SignatureSource]:
    """The signatures of a `ClickModel`: prepared features, raw values, and each field's vectors.

    Each field's vectors have a signature of their own, `embeddings_NAME`. A field's number beside
    the ids could not be: TF-Serving's row format and its batching want the size of the batch in
    every input, and requests of one signature share a batch.

    A `dense` that is not finite is an error of the request: JSON could not even tell the NaN.
    """
    fields = len(model.embeddings.cardinalities)

    def predict(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        logit = tf.cast(model(dict(features), training=False), tf.float32)
        return {"click_probability": tf.sigmoid(logit), "logit": logit}

    def predict_checked(features: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        outputs = predict(features)
        if traced_for_lite():  # There a graph cannot refuse; such a row's outputs are NaN.
            return outputs
        # Outputs depend on the check, not inputs, so that TensorFlow joins the network's operations
        # as it does without.
        with tf.control_dependencies([_check_finite(features["dense"], model.compute_dtype)]):
            return {name: tf.identity(value) for name, value in outputs.items()}

    sources = {
        DEFAULT: SignatureSource(
            predict_checked,
            {
                "dense": tf.TensorSpec([None, model.dense_features], tf.float32),
                "categorical": tf.TensorSpec([None, fields], tf.int64),
            },
        )
    }
    if encoder is not None:
        sources[RAW] = SignatureSource(
            lambda values: predict(encoder(values["integers"], values["categories"])),
            {
                "integers": tf.TensorSpec([None, model.dense_features], tf.string),
                "categories": tf.TensorSpec([None, fields], tf.string),
            },
        )
    if isinstance(model.embeddings, EmbeddingCollection):
        for name in model.embeddings.field_names:
            sources[f"embeddings_{name}"] = _vectors_of(model.embeddings, name)
    return sources


def _check_finite(dense: tf.Tensor, compute_type: str) -> tf.Tensor:
    computed = tf.cast(dense, compute_type)
    valid = tf.abs(computed) <= computed.dtype.max
    return check_all(valid, dense, f"dense must be finite numbers of {compute_type}")


def _vectors_of(collection: EmbeddingCollection, name: str) -> SignatureSource:
    def vectors(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        return {"vectors": tf.cast(collection.field_vectors(name, inputs["ids"]), tf.float32)}

    return SignatureSource(vectors, {"ids": tf.TensorSpec([None], tf.int64)})


def model_signatures(
    model: Any, inputs: Mapping[str, tf.TensorSpec] | None
) -> dict[str, SignatureSource]:
    """The signature of any other model: its own inputs and outputs.

    An input is called as the model's author called it, or `inputs`; an output as its key in a
    dictionary, or `outputs`; several without names `inputs_0`, `inputs_1`, ...

    Args:
        model: Of either Keras, built.
        inputs: Type and shape of each input by name; None reads them from a functional model. A
            model with one input gets the tensor, others a dictionary.

    Raises:
        ExportError: The model does not say what it takes.
    """
    if inputs is not None:
        single = len(inputs) == 1 and not isinstance(getattr(model, "input", None), dict)
        return {DEFAULT: _model_source(model, dict(inputs), "one" if single else "dict")}
    placeholders = _placeholders(model)
    if isinstance(placeholders, dict):
        specs = {name: _spec(x) for name, x in placeholders.items()}
        return {DEFAULT: _model_source(model, specs, "dict")}
    if not isinstance(placeholders, (list, tuple)):
        placeholders = [placeholders]
    names = _input_names(model, placeholders)
    specs = {name: _spec(x) for name, x in zip(names, placeholders, strict=True)}
    _take_integers(model, specs)
    return {DEFAULT: _model_source(model, specs, "one" if len(specs) == 1 else "list")}


def _placeholders(model: Any) -> Any:
    try:
        found = getattr(model, "input", None)
    except (AttributeError, ValueError):
        found = None
    if found is None:  # Keras 3's Sequential has `inputs` only.
        found = getattr(model, "inputs", None)
    if not found if isinstance(found, (list, dict)) else found is None:
        raise ExportError(
            f"{type(model).__name__} does not say what it takes; pass `inputs` with the name, type "
            "and shape of each input, such as {'ids': tf.TensorSpec([None, 2], tf.int64)}."
        )
    return found


def _input_names(model: Any, placeholders: Sequence[Any]) -> list[str]:
    # tf_keras names the input of a Sequential without one after its first layer.
    after_layers = {f"{layer.name}_input" for layer in model.layers}
    names = []
    for i, placeholder in enumerate(placeholders):
        name = placeholder.name
        if _MADE_UP.fullmatch(name) or name in after_layers:
            name = "inputs" if len(placeholders) == 1 else f"inputs_{i}"
        names.append(name)
    return names


def _spec(placeholder: Any) -> tf.TensorSpec:
    shape = list(placeholder.shape)
    return tf.TensorSpec([None, *shape[1:]], placeholder.dtype)


def _take_integers(model: Any, specs: dict[str, tf.TensorSpec]) -> None:
    """Ids are integers for a client, also where Keras gave a Sequential a float placeholder."""
    layers = model._flatten_layers()
    if len(specs) == 1 and any(getattr(x, "_ids_come_as_floats", False) for x in layers):
        ((name, spec),) = specs.items()
        specs[name] = tf.TensorSpec(spec.shape, tf.int64)


def _model_source(model: Any, specs: dict[str, tf.TensorSpec], form: str) -> SignatureSource:
    def call(inputs: Mapping[str, tf.Tensor]) -> dict[str, tf.Tensor]:
        values: Any = {name: inputs[name] for name in specs}
        if form == "one":
            (values,) = values.values()
        elif form == "list":
            values = list(values.values())
        outputs = model(values, training=False)
        if isinstance(outputs, Mapping):
            return dict(outputs)
        if isinstance(outputs, (list, tuple)):
            return {f"outputs_{i}": x for i, x in enumerate(outputs)}
        return {"outputs": outputs}

    return SignatureSource(call, specs)


def lookup_tables(model: Any) -> list[Any]:
    """The tables of Keras' lookup layers (StringLookup and the like) in a model."""
    found = [getattr(layer, "lookup_table", None) for layer in model._flatten_layers()]
    return [table for table in found if table is not None]
