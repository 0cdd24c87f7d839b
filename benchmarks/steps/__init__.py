"""Cost of watching a training step, compared with the bare step and with alternative tools.

``make bench`` runs it. Every way of watching trains in a process of its own, so that none disturbs another's classes or
threads, and there blocks of bare and of watched steps take turns. The processes do so too, in a random order. A ratio is that
of the sums over all pairs of blocks, with a 95 % interval. What time cannot resolve is counted.
"""
