"""Train with the Trainer of Hugging Face Transformers.

    nissa run examples/train_transformers.py       # telemetry without a change to the script
    python examples/train_transformers.py --nissa  # with Nissa's callback: losses and evaluations as well

Needs ``pip install transformers accelerate``.
"""

import argparse
import tempfile

import torch
from spiral_data import classifier, spirals
from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from nissa.integrations.transformers import NissaCallback


class Classifier(nn.Module):
    """A classifier of the two spirals, with the interface that the trainer expects."""

    def __init__(self) -> None:
        super().__init__()
        self.network = classifier()

    def forward(self, points: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Return loss and logits."""
        logits = self.network(points)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def rows(seed: int) -> list[dict[str, Tensor]]:
    """Return the samples as the trainer expects them."""
    return [{"points": point, "labels": label} for point, label in zip(*spirals(seed=seed), strict=True)]


def main() -> None:
    """Train a few epochs."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--nissa", action="store_true", help="add Nissa's callback")
    options = arguments.parse_args()

    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        trainer = Trainer(
            Classifier(),
            TrainingArguments(
                folder,
                num_train_epochs=options.epochs,
                per_device_train_batch_size=32,
                gradient_accumulation_steps=2,
                learning_rate=1e-2,
                eval_strategy="epoch",
                save_strategy="no",
                use_cpu=True,
                report_to=[],
                disable_tqdm=True,
            ),
            train_dataset=rows(0),
            eval_dataset=rows(1),
            callbacks=[NissaCallback()] if options.nissa else [],
        )
        trainer.train()


if __name__ == "__main__":
    main()
