"""Train until the data turns out to be broken."""

import torch
import torch.nn as nn
from torch.utils.data import DataLoader, Dataset


class Broken(Dataset):
    def __len__(self):
        return 6

    def __getitem__(self, index):
        if index == 4:
            raise ValueError("sample 4 cannot be decoded")
        return torch.ones(3) * index


torch.manual_seed(0)
model = nn.Linear(3, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
for x in DataLoader(Broken(), batch_size=1):
    optimizer.zero_grad()
    loss = model(x).square().mean()
    loss.backward()
    optimizer.step()
    print(f"loss {loss.item():.6f}")
