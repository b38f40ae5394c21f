"""From options to an embedding collection and a model."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any

from tf_compemb._signatures import STATISTICS, arguments_of_method, network_arguments
from tf_compemb.training.environment import total_bytes
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions

_NOT_OF_THE_NETWORK = {"self", "embeddings", "dense_features", "kwargs"}


def method_options(options: TrainingOptions) -> dict[str, Any]:
    """The arguments that the chosen method takes from the options.

    `--collisions`, `--operation`, `--modulus` and `--partitions` are shared by several methods and
    ignored by the others, so that one command can compare them. An `--option` must be known.

    Raises:
        UserError: Unknown method or `--option`, or `--partitions` that cannot be read.
    """
    (name,) = options.embedding
    try:
        accepted = arguments_of_method(name)
    except ValueError as error:
        raise UserError(str(error)) from error
    shared = {
        "collisions": options.collisions,
        "operation": options.operation,
        "modulus": options.modulus,
        **_partitions(options.partitions),
    }
    if "family" not in accepted:  # A method that takes `partitions` as a list only.
        shared.pop("partitions", None)
    chosen = {k: v for k, v in shared.items() if v is not None and k in accepted}
    own = accepted - {"self", "input_dim", "output_dim", *STATISTICS, "kwargs"}
    for option in options.option:
        if option not in own:
            raise UserError(
                f"The method {name!r} has no option {option!r}; it has: "
                f"{', '.join(sorted(own)) or 'none'}."
            )
    return {**chosen, **options.option}


def _partitions(text: str | None) -> dict[str, Any]:
    """`mixed-radix:3` as the arguments `partitions` and `family`."""
    if text is None:
        return {}
    family, _, count = text.partition(":")
    if family not in ("mixed-radix", "chinese-remainder") or not count.isdigit() or int(count) < 1:
        raise UserError(
            "--partitions must be mixed-radix:K or chinese-remainder:K with K at least 1, "
            f"not {text!r}."
        )
    return {"partitions": int(count), "family": family.replace("-", "_")}


def build_collection(
    options: TrainingOptions, cardinalities: Sequence[int], data: Any = None
) -> Any:
    """The `EmbeddingCollection` that the options ask for; no table is made yet.

    Args:
        options: With one method in `embedding`.
        cardinalities: Ids of each field.
        data: None, or a `PreparedDataset` whose training part says how frequent ids are and which
            occur together, for methods that ask.

    Raises:
        UserError: The method refuses its options.
    """
    from tf_compemb.collection import EmbeddingCollection
    from tf_compemb.training.row_sample import RowSample

    (name,) = options.embedding
    arguments = method_options(options)
    try:
        return EmbeddingCollection(
            {f"C{i}": n for i, n in enumerate(cardinalities, start=1)},
            output_dim=options.dim,
            embedding=name,
            threshold=options.threshold,
            options=arguments,
            # A copy: tf_keras replaces the lists in what a layer keeps by its own.
            overrides=copy.deepcopy(options.overrides),
            frequencies=None if data is None else data.frequencies,
            sampled_ids=None if data is None else RowSample(data, options.seed),
        )
    except OverflowError as error:
        raise UserError(
            f"The fields have {sum(cardinalities):,} ids together, more than 64 bits can number."
        ) from error
    except (TypeError, ValueError) as error:
        raise UserError(f"The method {name!r} refuses its options: {error}") from error


def require_memory(options: TrainingOptions, collection: Any) -> None:
    """Makes sure that the model's variables fit into this machine, before any is made.

    Raises:
        UserError: They do not, whatever else training takes.
    """
    needed = collection.footprint().training_bytes + 4 * network_parameters(options, collection)
    total = total_bytes()
    if total is not None and needed > total:
        raise UserError(
            f"The model's variables take {needed / 1e9:,.1f} GB, and this machine has "
            f"{total / 1e9:,.1f} GB of memory: take a smaller --dim or --network, or a method with "
            "fewer parameters (--dry-run tells them)."
        )


def build_model(options: TrainingOptions, collection: Any) -> Any:
    """The model of the options over a collection, with no variables yet.

    Raises:
        UserError: The model refuses a `--network`.
    """
    model = _model_class(options)
    with _refusals(options):
        return model(collection, **options.network)


def network_parameters(options: TrainingOptions, collection: Any) -> int:
    """Parameters of the model beside the tables.

    Raises:
        UserError: The model refuses a `--network`.
    """
    count = _model_class(options).network_parameters
    with _refusals(options):
        return count(collection.num_vectors, collection.output_dim, **options.network)


def _model_class(options: TrainingOptions) -> Any:
    """The class of the model, which has every `--network` that is asked for."""
    from tf_compemb.models import DCN, DLRM

    check_network(options)
    return {"dlrm": DLRM, "dcn": DCN}[options.model]


def check_network(options: TrainingOptions) -> None:
    """Whether the model has every `--network` that is asked for.

    Raises:
        UserError: It has not, or widths are no widths.
    """
    from tf_compemb.arguments import positive_integers

    known = network_arguments(options.model) - _NOT_OF_THE_NETWORK
    for name, value in options.network.items():
        if name not in known:
            raise UserError(
                f"--network {name}: {options.model} has no such hyper-parameter; it has: "
                f"{', '.join(sorted(known))}."
            )
        if name.endswith("_units"):
            try:
                positive_integers(name, value)
            except ValueError as error:
                raise UserError(f"--network: {error}") from error


@contextlib.contextmanager
def _refusals(options: TrainingOptions) -> Iterator[None]:
    """What a model says of values it cannot have, as one sentence."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not options.network:
            raise
        asked = ", ".join(f"{name}={value!r}" for name, value in options.network.items())
        raise UserError(f"--network: {options.model} cannot have {asked}: {error}") from error


def build_optimizer(options: TrainingOptions) -> Any:
    """The optimiser of the options."""
    from tf_compemb import optimizers

    options = options.with_optimizer_defaults()
    return optimizers.get(
        options.optimizer, options.learning_rate, warmup_steps=options.warmup_steps or 0
    )
