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
