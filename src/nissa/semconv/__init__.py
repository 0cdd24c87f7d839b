"""Semantic conventions: every name, unit and histogram bucket of Nissa's telemetry.

Other modules import the names from here. Instruments, reference pages, dashboards and tests are derived from this
package. A test fails for a name that nothing emits.
"""
