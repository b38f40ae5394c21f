"""What fields weigh, as a table for a terminal."""

from __future__ import annotations

from collections.abc import Mapping

from tf_compemb.footprint import Footprint

_HEADER = ("field", "rows", "method", "parameters", "bytes", "ratio")
_LEFT_ALIGNED = (0, 2)


def size_table(fields: Mapping[str, tuple[int, str, Footprint]], total: Footprint) -> str:
    """Lines of aligned columns: each field, then the sum.

    Args:
        fields: Rows, method and footprint by field.
        total: The footprint of all fields.
    """
    lines = [_HEADER]
    for name, (rows, method, size) in fields.items():
        lines.append((name, str(rows), method, *_cells(size)))
    all_rows = sum(rows for rows, _, _ in fields.values())
    lines.append(("total", str(all_rows), "", *_cells(total)))
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i in _LEFT_ALIGNED else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def _cells(size: Footprint) -> tuple[str, str, str]:
    return str(size.parameters), str(size.inference_bytes), f"{size.ratio:.1f}"
