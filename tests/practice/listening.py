"""Measuring what is heard: loudness and pitch of samples."""

from __future__ import annotations

import statistics
from operator import mul


def rms(values) -> float:
    """The root mean square of the samples."""
    return (sum(map(mul, values, values)) / max(1, len(values))) ** 0.5


def fundamental(values, rate: int = 24_000) -> float:
    """The median fundamental frequency of the loud parts, in Hz, by autocorrelation."""
    found, values, rate = [], values[::2], rate // 2
    for start in range(0, len(values) - 1024, 1024):
        piece = values[start : start + 1024]
        if rms(piece) < 1500:
            continue
        lags = {lag: sum(map(mul, piece, piece[lag:])) / (1024 - lag) for lag in range(rate // 450, rate // 65)}
        best = max(lags.values())
        lag = next(lag for lag, value in lags.items() if value > 0.85 * best)
        while lags.get(lag + 1, 0) > lags[lag]:
            lag += 1
        found.append(rate / lag)
    return statistics.median(found)
