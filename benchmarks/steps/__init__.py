"""What watching costs a training step, beside the bare step and beside what people would use instead.

``make bench`` runs it. Every way of watching trains in a process of its own, so that none disturbs another's classes or
threads; the processes take turns in a random order, a few steps each, and a way is compared with the bare training of the
same round. A ratio is the median over the rounds, with the bootstrap's 95 % interval. What time cannot resolve is counted.
"""
