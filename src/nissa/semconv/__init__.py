"""Every name, unit and bucket of our telemetry, once.

No other module spells a telemetry name. Instruments, reference pages, dashboards and tests are derived from here, and a
test fails for a name that nothing emits.
"""
