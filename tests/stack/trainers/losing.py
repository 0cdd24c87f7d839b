"""Trains nothing, with a backend that fails at everything, and lets telemetry tell so."""

import nissa
from nissa import TelemetryEvent


class Failing:
    """A backend whose disk is full, say."""

    def emit(self, event: TelemetryEvent) -> None:
        raise OSError(event.event_type)


if __name__ == "__main__":
    with nissa.start("minimal", console__enabled=False) as run:
        run.hub.add_backend(Failing())
        run.germinate("seed-1", blueprint="conv", slot="r0c0", parameters=1).advance("training")
