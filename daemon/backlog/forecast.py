"""When something will be full, from how it grew of late."""

from collections import deque

WINDOW_S = 300.0
"""How far back growth is looked at."""

LEAST_S = 2.0
"""Before so much has been seen nothing is foretold."""

STEP_S = 1.0
"""Values are kept this far apart."""


class Forecast:
    """Watches one growing amount."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, float]] = deque()

    def see(self, amount: float, now_s: float) -> None:
        """Take note of the amount there is."""
        if self._seen and now_s - self._seen[-1][0] < STEP_S:
            return
        self._seen.append((now_s, amount))
        while now_s - self._seen[0][0] > WINDOW_S:
            self._seen.popleft()

    def full_in_s(self, limit: float) -> float | None:
        """Seconds until the amount is at its limit at the rate of the window; None while it does not grow."""
        if len(self._seen) < 2 or self._seen[-1][0] - self._seen[0][0] < LEAST_S:
            return None
        (began_s, before), (now_s, amount) = self._seen[0], self._seen[-1]
        rate = (amount - before) / (now_s - began_s)
        return max(0.0, limit - amount) / rate if rate > 0 else None
