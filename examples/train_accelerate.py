"""Train with Hugging Face Accelerate.

    nissa run examples/train_accelerate.py       # telemetry without a change to the script
    python examples/train_accelerate.py --nissa  # with Nissa's tracker: losses and validation results as well

Needs ``pip install accelerate``.
"""

import argparse

import torch
from accelerate import Accelerator
from spiral_data import classifier, spirals
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nissa.integrations.accelerate import NissaTracker


def main() -> None:
    """Train a few epochs."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--nissa", action="store_true", help="add Nissa's tracker")
    options = arguments.parse_args()

    torch.manual_seed(0)
    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=2, log_with=NissaTracker() if options.nissa else None
    )
    accelerator.init_trackers("spirals", config={"lr": 1e-2})
    model = classifier()
    model, optimizer, training, test = accelerator.prepare(
        model,
        torch.optim.AdamW(model.parameters(), lr=1e-2),
        DataLoader(TensorDataset(*spirals()), batch_size=32, shuffle=True),
        DataLoader(TensorDataset(*spirals(seed=1)), batch_size=64),
    )
    for epoch in range(options.epochs):
        model.train()
        for points, labels in training:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(points), labels)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                optimizer.zero_grad()
        model.eval()
        with torch.no_grad():
            losses = [nn.functional.cross_entropy(model(points), labels) for points, labels in test]
        accelerator.log({"eval_loss": torch.stack(losses).mean().item()}, step=epoch)
    accelerator.end_training()


if __name__ == "__main__":
    main()
