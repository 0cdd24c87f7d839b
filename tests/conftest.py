"""Where there is no CUDA device, what is written for one is interpreted on the CPU."""

import os

import torch

if not torch.cuda.is_available():
    # Read when Triton is imported, which torch and Nissa leave until they need it.
    os.environ.setdefault("TRITON_INTERPRET", "1")
