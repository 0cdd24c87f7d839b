"""Boards, recording rules and alerts as code.

Functions return what Grafana and Prometheus read; ``make generate`` writes it to ``generated/`` and ``rules/``. A metric
or an attribute is a constant of `nissa.semconv` wherever it occurs here, so that none can be misspelt.
"""
