"""When the controller is asked to hold the flow cell, and when to go on."""

from daemon.config import MemoryConfig, SpoolConfig


class Backpressure:
    """Holds above the spool's high-water mark until it is below the low one.

    Images in memory hold too when the spool takes none of them: it is at its limit, or its disk fails.
    """

    def __init__(self, memory: MemoryConfig, spool: SpoolConfig) -> None:
        self._memory, self._spool = memory, spool
        self.holding = True
        """Whether the controller may be holding: a daemon that was killed may have left it so."""

    def change(self, *, waiting_bytes: int, spooled_bytes: int) -> bool | None:
        """True where a hold is to be asked for, False for a release, None where nothing changes.

        Parameters
        ----------
        waiting_bytes : in memory, not counting a cycle that is being imaged.
        """
        memory, spool = self._memory, self._spool
        above = waiting_bytes > (memory.spill_above + memory.refuse_above) / 2 or spooled_bytes > spool.hold_above
        below = waiting_bytes <= memory.spill_above and spooled_bytes <= spool.release_below
        if above and not self.holding:
            return True
        return False if below and self.holding else None
