"""Train until the loss is low enough, and tell the scheduler of the cluster by the exit status."""

import sys

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
loader = DataLoader(TensorDataset(torch.randn(64, 3)), batch_size=8)
for epoch in range(10):
    for i, (x,) in enumerate(loader):
        optimizer.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        optimizer.step()
        print(f"loss {loss.item():.6f}")
        if epoch == 1 and i == 2:
            sys.exit(3)
