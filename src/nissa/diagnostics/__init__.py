"""Diagnosis of training at each validation: red flags, a narrative and a snapshot."""
