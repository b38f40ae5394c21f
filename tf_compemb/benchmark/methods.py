"""Our methods as the suites name them: name in the registry, and options."""

from __future__ import annotations

from typing import Any

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "full": ("full", {}),
    "hash": ("hash", {"collisions": 4}),
    "qr": ("qr", {"collisions": 4}),
    "crt": ("compositional", {"partitions": 2, "family": "chinese_remainder"}),
    "path": ("path", {"collisions": 4, "hidden_units": [64]}),
}

# Every name in the registry, which would import TensorFlow; a test compares.
EVERY_METHOD = (
    "full",
    "hash",
    "qr",
    "compositional",
    "path",
    "frequency_threshold",
    "memcom",
    "binary_code",
    "hash_embeddings",
    "double_hash",
    "unified",
    "robe",
    "lma",
    "cafe",
    "low_rank",
    "mlet",
    "tt",
    "stt",
    "fpd",
    "ant",
    "dhe",
)

# What the full tables' bytes are divided by for methods that cannot have a tenth.
LEAST_DIVISORS = {"ant": 4, "mlet": 1}
