"""Shares of what may be nothing."""

import math


def share(part: float, whole: float) -> float:
    """``part / whole``; NaN of nothing, so that what was not measured is never taken for a figure."""
    return float(part / whole) if whole else math.nan
