"""Train two networks in two processes, the second one forked from the first."""

import os

import torch
import torch.nn as nn


def train(name, steps):
    torch.manual_seed(steps)
    model = nn.Linear(3, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in range(steps):
        optimizer.zero_grad()
        loss = model(torch.randn(4, 3)).square().mean()
        loss.backward()
        optimizer.step()
    print(f"{name} done", flush=True)


train("warm-up", 2)
child = os.fork()
if child == 0:
    train("child", 5)
else:
    os.waitpid(child, 0)
    train("parent", 3)
