"""A model's twin with small tables: the same network and graph, so that tables can be told apart.

A server needs memory for a model's graph, some 20 MB for DLRM with its 28 signatures, however small
the tables are. What a model takes beyond its twin is tables alone.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tf_compemb.serving.compare_models import cardinalities
from tf_compemb.training.command_options import arguments
from tf_compemb.training.errors import UserError
from tf_compemb.training.options import TrainingOptions

_FEW_IDS = 2000
_OPTIONS = (
    *("model", "embedding", "operation", "collisions", "modulus", "partitions"),
    *("threshold", "dim", "option"),
)


def write_cut_model(card: Mapping[str, Any], directory: Path) -> bool:
    """Exports an untrained model like a card's, with large fields cut to about 2,000 ids.

    Args:
        card: Of an exported click model.
        directory: The twin's folder, to be made.

    Returns:
        Whether there is a twin; a card of a `.keras` file does not tell how to make one.

    Raises:
        UserError: The export failed.
    """
    options = model_options(card)
    if options is None:
        return False
    sizes = cut_cardinalities(cardinalities(dict(card)), options)
    command = [sys.executable, "-m", "tf_compemb.export", "--untrained", *arguments(options)]
    command += ["--cardinalities", ",".join(map(str, sizes)), "--precision", card["precision"]]
    command += ["--out", str(directory.parent), "--name", directory.name]
    # The export chooses its Keras itself.
    environment = {k: v for k, v in os.environ.items() if k != "TF_USE_LEGACY_KERAS"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode != 0:
        reason = done.stderr.strip().splitlines()[-1:] or ["it said nothing"]
        raise UserError(f"{directory.name}: its twin with small tables: {reason[0]}")
    return True


def model_options(card: Mapping[str, Any]) -> TrainingOptions | None:
    """The trainer's options that make a model like a card's; None where the card tells none.

    >>> card = {"trained": False, "model": "DLRM", "embeddings": [{"method": "qr"}],
    ...         "options": {"collisions": 60, "dim": 8}}
    >>> arguments(model_options(card))
    ['--embedding', 'qr', '--collisions', '60', '--dim', '8']
    """
    if "training" in card:
        given = TrainingOptions.from_json(card["training"]["options"])
        return TrainingOptions(**{name: getattr(given, name) for name in _OPTIONS})
    if card.get("trained") is not False:
        return None
    own = dict(card["options"])
    known = {name: own.pop(name) for name in _OPTIONS if name in own}
    own.pop("seed", None)
    method = card["embeddings"][0]["method"]
    return TrainingOptions(model=card["model"].lower(), embedding=(method,), option=own, **known)


def cut_cardinalities(sizes: list[int], options: TrainingOptions) -> list[int]:
    """Small fields as they are, others cut; fields of different size stay different.

    Tables of equal size are read together, and fields up to the threshold are not compressed: both
    have to be as they were, or the twin would have another graph.
    """
    least = max(_FEW_IDS, 4 * (options.collisions or 0)) + (options.threshold or 0)
    distinct = sorted({size for size in sizes if size > least})
    cut = {size: least + place for place, size in enumerate(distinct, start=1)}
    return [cut.get(size, size) for size in sizes]
