"""OpenTelemetry: the only part of Nissa that knows it."""
