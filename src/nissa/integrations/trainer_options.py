"""Arguments that the callbacks and trackers of all trainers share."""

from typing import Any

from nissa.integrations.metric_names import ValidationNames


class TrainerOptions:
    """Constructor of a trainer's callback or tracker; a class derives from it first, and then from the trainer's own.

    Args:
        profile: As for `nissa.start`.
        validation_loss: Name under which the trainer reports the validation loss; by default ``val_loss``, ``eval_loss``
            and the like.
        validation_accuracy: Name of the accuracy, a fraction; by default ``val_acc``, ``eval_accuracy`` and the like.
        **settings: Further arguments of `nissa.start`. They are not used if a run is active.
    """

    def __init__(
        self,
        profile: str | None = None,
        *,
        validation_loss: str | None = None,
        validation_accuracy: str | None = None,
        **settings: Any,
    ) -> None:
        super().__init__()
        self._names = ValidationNames(validation_loss, validation_accuracy)
        self._settings = {"profile": profile, **settings}
        self._prepare()

    def _prepare(self) -> None:
        """Create the further state of the object; a derived class has no other constructor."""
