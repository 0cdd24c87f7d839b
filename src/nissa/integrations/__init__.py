"""Entry points for training loops that exist already: trainers, and scripts without a line of Nissa.

Each module imports its framework when it is imported itself; ``import nissa`` imports none of them.
"""
