"""Whether telemetry would arrive: checks of versions, settings, endpoints, clocks and collectors, each with advice."""
