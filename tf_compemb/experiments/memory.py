"""Memory that a training run takes, estimated from its sizes."""

from __future__ import annotations

from tf_compemb.experiments.plan import Run, Sizes
from tf_compemb.optimizers.names import slots_per_parameter
from tf_compemb.training.environment import total_bytes
from tf_compemb.training.options import TrainingOptions

# Python, TensorFlow, the network, batches: peak memory of a run whose tables are tiny.
PROGRAM_BYTES = 950_000_000


def needed_bytes(options: TrainingOptions, sizes: Sizes | None) -> int:
    """About the peak memory of a run.

    Tables and the optimiser's state, and the tables once more while the model is written.

    Args:
        options: Of the run.
        sizes: Of its model.
    """
    if sizes is None:
        return PROGRAM_BYTES
    slots = slots_per_parameter(options.optimizer, options.dim)
    return PROGRAM_BYTES + round(2 * sizes.training_bytes + 4 * slots * sizes.embedding_parameters)


def why_too_large(run: Run) -> str:
    """Why a run cannot fit into this machine's memory, or ""."""
    needed, total = needed_bytes(run.options, run.point.sizes), total_bytes()
    if total is None or needed <= total:
        return ""
    return f"needs about {needed / 1e9:.1f} GB of memory, this machine has {total / 1e9:.1f} GB"
