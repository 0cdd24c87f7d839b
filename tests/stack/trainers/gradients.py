"""Trains a small network and keeps a copy of every gradient that its optimizer used.

Argument: the file that the copies go to, an array of absolute values per parameter, one row per step.
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch

import nissa

EPOCHS, STEPS = 3, 20


def main(path: Path) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.Tanh(), torch.nn.Linear(32, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    truth: dict[str, list[torch.Tensor]] = {name: [] for name, _ in model.named_parameters()}
    with nissa.start("diagnostic", console__enabled=False) as run:
        run.watch(model, optimizer)
        for epoch in range(EPOCHS):
            with run.epoch(epoch):
                for _ in range(STEPS):
                    loss = model(torch.randn(8, 16)).square().mean()
                    optimizer.zero_grad()
                    loss.backward()
                    for name, parameter in model.named_parameters():
                        assert parameter.grad is not None
                        truth[name].append(parameter.grad.detach().abs().flatten().clone())
                    run.log_loss(loss)
                    optimizer.step()
            assert run.flush()  # an export for each epoch, so that deltas have something to add up
    kept: dict[str, Any] = {name: torch.stack(rows).double().numpy() for name, rows in truth.items()}
    np.savez(path, **kept)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
