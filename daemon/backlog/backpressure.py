"""When the controller is asked to hold the flow cell, and when to go on."""

from daemon.config import MemoryConfig, SpoolConfig


class Backpressure:
    """Holds above the spool's high-water mark until it is below the low one.

    Images in memory hold too when the spool takes none of them: it is at its limit, or its disk fails.
    """

    def __init__(self, memory: MemoryConfig, spool: SpoolConfig) -> None:
        self._memory, self._spool = memory, spool
        self.holding: bool | None = None
        """What the controller was asked for; None before the first time: an earlier daemon may have left it holding."""

    def change(self, *, waiting_bytes: int, spooled_bytes: int) -> bool | None:
        """True where a hold is to be asked for, False for a release, None where nothing changes.

        Parameters
        ----------
        waiting_bytes : in memory, not counting a cycle that is being imaged.
        """
        memory, spool = self._memory, self._spool
        above = waiting_bytes > (memory.spill_above + memory.refuse_above) / 2 or spooled_bytes > spool.hold_above
        below = waiting_bytes <= memory.spill_above and spooled_bytes <= spool.release_below
        if above:
            return None if self.holding else True
        return False if self.holding is None or (self.holding and below) else None
