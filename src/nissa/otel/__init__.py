"""OpenTelemetry backend: the only package of Nissa that imports the OpenTelemetry SDK."""
