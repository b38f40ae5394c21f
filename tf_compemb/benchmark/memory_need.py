"""How much memory a case takes at its worst, so that none is begun that does not fit."""

from __future__ import annotations

from tf_compemb.benchmark.cases import Case
from tf_compemb.benchmark.methods import METHODS

# Float32 arrays of the table's size that are alive at once, besides the table: the optimiser's
# state, twice where it is being made, and for the stock optimisers the whole table's temporaries.
_OURS = {"sgd": 1, "adagrad": 2, "rowwise_adagrad": 1, "amsgrad": 6, "lazy_amsgrad": 6}
_OTHERS = {"sgd": 3, "adagrad": 5, "amsgrad": 8}
_PROCESS = 1_000_000_000


def needed_bytes(case: Case) -> int:
    """Bytes that a case takes at its worst, roughly; 0 where it has no table.

    >>> case = Case("full", "keras3", "step",
    ...             {"method": "full", "rows": 10**7, "dim": 16, "optimizer": "sgd"})
    >>> needed_bytes(case)
    2280000000
    """
    settings = case.settings
    if not {"rows", "dim"} <= set(settings) or settings.get("method") == "none":
        return 0
    table = 4 * settings["rows"] * settings["dim"]
    optimizer = settings.get("optimizer")
    if settings.get("method") in METHODS:
        extra = _OURS.get(optimizer, 4) if optimizer else 1
        if settings["method"] != "full":
            table //= 4
    else:
        extra = _OTHERS.get(optimizer, 2) if optimizer else 1
    return table * (1 + extra) + _PROCESS
