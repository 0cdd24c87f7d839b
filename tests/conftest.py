"""Where there is no CUDA device, what is written for one is interpreted on the CPU."""

import os

import torch

if not torch.cuda.is_available():
    # Read when Triton is imported, which torch and Nissa leave until they need it.
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Threads of several workers would spin on the same cores: a small training then takes five times as much of them.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(1)
