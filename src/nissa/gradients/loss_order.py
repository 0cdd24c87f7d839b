"""Order of ``log_loss()`` and ``step()`` in a training loop, which decides the step that a loss belongs to."""


class LossOrder:
    """Whether a loop logs the loss of a step after that step; one object per watched name.

    The first loss decides. If it is logged before any step, or after several steps without a loss, it belongs to the next
    step. If it follows the first step directly, losses are logged after their steps. With a closure it belongs to the step
    before it as well, because ``step()`` returns the loss there. A loss before the first step of an epoch decides again.

    Attributes:
        after: None as long as it is unknown.
    """

    __slots__ = ("_steps", "_with_closure", "after")

    def __init__(self) -> None:
        self.after: bool | None = None
        self._steps = 0
        self._with_closure = False

    def stepped(self, *, logged: bool, closure: bool) -> bool:
        """Record a step; return whether its row waits for a loss.

        Args:
            logged: Whether a loss was logged that cannot belong to the previous step.
            closure: Whether the step evaluates the loss in a closure.
        """
        self._steps += 1
        self._with_closure = closure
        if logged or (self.after is None and self._steps > 1 and not closure):
            self.after = False
        return self.after is not False

    def logged_after(self) -> bool:
        """Record a loss that is logged while the row of a step waits; return whether it belongs to that step."""
        if self.after is None:
            self.after = self._steps == 1 or self._with_closure
        return self.after
