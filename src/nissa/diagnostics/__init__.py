"""Diagnosis: what the numbers of an epoch say, as flags, a sentence and a snapshot."""
