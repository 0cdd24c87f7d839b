"""Train with Lightning.

    nissa run examples/train_lightning.py       # telemetry without a change to the script
    python examples/train_lightning.py --nissa  # with Nissa's callback: validation results as well

Needs ``pip install lightning``.
"""

import argparse
from typing import Any

import lightning
import torch
from spiral_data import classifier, spirals
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from nissa.integrations.lightning import NissaCallback


class Classifier(lightning.LightningModule):
    """A classifier of the two spirals."""

    def __init__(self) -> None:
        super().__init__()
        self.network = classifier()

    def training_step(self, batch: Any, _index: int) -> torch.Tensor:
        """Return the loss of a batch."""
        return nn.functional.cross_entropy(self.network(batch[0]), batch[1])

    def validation_step(self, batch: Any, _index: int) -> None:
        """Log loss and accuracy of a batch."""
        logits = self.network(batch[0])
        self.log("val_loss", nn.functional.cross_entropy(logits, batch[1]))
        self.log("val_acc", (logits.argmax(1) == batch[1]).float().mean())

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main() -> None:
    """Train a few epochs."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--nissa", action="store_true", help="add Nissa's callback")
    options = arguments.parse_args()

    lightning.seed_everything(0)
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=options.epochs,
        accumulate_grad_batches=2,
        gradient_clip_val=1.0,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[NissaCallback()] if options.nissa else [],
    )
    training = DataLoader(TensorDataset(*spirals()), batch_size=32, shuffle=True)
    test = DataLoader(TensorDataset(*spirals(seed=1)), batch_size=64)
    trainer.fit(Classifier(), training, test)


if __name__ == "__main__":
    main()
