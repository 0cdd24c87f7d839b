"""Train with plain PyTorch.

nissa run examples/train_plain.py       # telemetry without a change to the script
python examples/train_plain.py --nissa  # with `run.watch`, and validation results
"""

import argparse

import torch
from spiral_data import classifier, spirals
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import nissa


def main() -> None:
    """Train a few epochs."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--nissa", action="store_true", help="instrument the loop explicitly")
    options = arguments.parse_args()

    torch.manual_seed(0)
    training = DataLoader(TensorDataset(*spirals()), batch_size=32, shuffle=True)
    test_points, test_labels = spirals(seed=1)
    model = classifier()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    run = nissa.start() if options.nissa else None
    if run is not None:
        run.watch(model, optimizer)

    for epoch in range(options.epochs):
        if run is not None:
            run.begin_epoch(epoch)
        model.train()
        for points, labels in training:
            loss = nn.functional.cross_entropy(model(points), labels)
            optimizer.zero_grad()
            loss.backward()
            if run is not None:
                run.log_loss(loss)
            optimizer.step()
        model.eval()
        with torch.no_grad():
            logits = model(test_points)
            validation_loss = nn.functional.cross_entropy(logits, test_labels)
            accuracy = (logits.argmax(1) == test_labels).float().mean()
        print(f"epoch {epoch}: loss {validation_loss:.3f}, accuracy {accuracy:.1%}")
        if run is not None:
            run.validate(loss=validation_loss, accuracy=accuracy)
            run.end_epoch()
    if run is not None:
        run.close()


if __name__ == "__main__":
    main()
