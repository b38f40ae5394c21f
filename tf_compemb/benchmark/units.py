"""Measures as they are read: names, numbers, units."""

from __future__ import annotations

SECONDS = "seconds"


def words(measure: str) -> str:
    """A measure's name as it is read.

    >>> words("peak_rss_bytes")
    'peak RSS'
    """
    return measure.removesuffix("_bytes").replace("_", " ").replace("rss", "RSS")


def quantity(measure: str, value: float) -> str:
    """A value in a unit that reads well.

    >>> quantity("seconds", 0.00153), quantity("peak_rss_bytes", 2e9), quantity("seconds", 75.2)
    ('1.53 ms', '2,000.0 MB', '75.2 s')
    >>> quantity("rows_per_second", 305_123.4)
    '305,123'
    """
    if measure == SECONDS:
        if value >= 1:
            return f"{value:.1f} s"
        return f"{1e3 * value:.3g} ms" if value >= 1e-3 else f"{1e6 * value:.3g} us"
    if measure.endswith("_bytes"):
        return f"{value / 1e6:,.1f} MB"
    return f"{value:,.0f}"
