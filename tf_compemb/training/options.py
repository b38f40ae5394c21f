"""The options of a training run; `command_options` reads them from a command line."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from tf_compemb.optimizers.names import DEFAULT_LEARNING_RATES, DEFAULT_WARMUP_STEPS


@dataclass(frozen=True)
class TrainingOptions:
    """Everything that decides a training run; `config.json` keeps it.

    Attributes: one for each option of `tf-compemb train --help`, with the same meaning.
    """

    data: tuple[str, ...] = ()
    rows: int = 200_000
    cache: str | None = None
    encoder: str | None = None
    min_count: int | None = None
    hash_buckets: int | None = None
    bad_lines: str | None = None
    model: str = "dlrm"
    network: dict[str, Any] = field(default_factory=dict)
    embedding: tuple[str, ...] = ("full",)
    operation: str | None = None
    collisions: int | None = None
    modulus: int | str | None = None
    partitions: str | None = None
    threshold: int | None = None
    dim: int = 16
    option: dict[str, Any] = field(default_factory=dict)
    overrides: dict[str, Any] = field(default_factory=dict)
    epochs: int = 1
    batch_size: int = 128
    optimizer: str = "adagrad"
    learning_rate: float | None = None
    warmup_steps: int | None = None
    distill: str | None = None
    distill_weight: float = 0.5
    temperature: float = 2.0
    seed: int = 0
    seeds: int = 1
    precision: str = "float32"
    steps_per_execution: int | None = None
    prefetch: int | None = None
    intra_op_threads: int | None = None
    inter_op_threads: int | None = None
    strategy: str = "none"
    checkpoint_every: int = 2000
    validate_every: int | None = None
    out: str | None = None
    resume: bool = False
    evaluate: str | None = None
    dry_run: bool = False
    cardinalities: str | None = None
    profile: bool = False
    json: bool = False

    def to_json(self) -> dict[str, Any]:
        """The options as JSON values, without those that are about one call only."""
        values = dataclasses.asdict(self)
        return {name: values[name] for name in values if name not in _OF_ONE_CALL}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> TrainingOptions:
        """The options that `to_json` gave."""
        known = {f.name for f in dataclasses.fields(cls)}
        tuples = {name: tuple(v) for name, v in values.items() if isinstance(v, list)}
        return cls(**{name: v for name, v in {**values, **tuples}.items() if name in known})

    def with_optimizer_defaults(self) -> TrainingOptions:
        """A copy that says the optimiser's learning rate and warm-up in numbers."""
        rate, steps = self.learning_rate, self.warmup_steps
        return self.replace(
            learning_rate=DEFAULT_LEARNING_RATES[self.optimizer] if rate is None else rate,
            warmup_steps=DEFAULT_WARMUP_STEPS[self.optimizer] if steps is None else steps,
        )

    def replace(self, **changes: Any) -> TrainingOptions:
        """A copy with some options changed."""
        return dataclasses.replace(self, **changes)


# What another machine may want otherwise when a run goes on there.
OF_ONE_MACHINE = ("prefetch", "intra_op_threads", "inter_op_threads")
_OF_ONE_CALL = ("out", "resume", "evaluate", "dry_run", "profile", "json", *OF_ONE_MACHINE)
