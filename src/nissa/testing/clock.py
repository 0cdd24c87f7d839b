"""Clock for tests that moves only when a test advances it."""


class FakeClock:
    """Clock that moves only by `advance`, in nanoseconds since the Unix epoch.

    Example:
        >>> clock = FakeClock(start=1_000)
        >>> clock.advance(2)
        >>> clock()
        2000001000
    """

    def __init__(self, start: int = 1_700_000_000_000_000_000) -> None:
        self._start = self._now = start

    def __call__(self) -> int:
        """Return the current time of the clock, nanoseconds since the Unix epoch."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Move the clock forward."""
        self._now += round(seconds * 1e9)

    def seconds(self, time: int) -> float:
        """Return the seconds from the start of the clock to a time, such as the start of a span.

        Example:
            >>> clock = FakeClock()
            >>> clock.advance(1.5)
            >>> clock.seconds(clock())
            1.5
        """
        return (time - self._start) / 1e9
