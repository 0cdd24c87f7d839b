"""Train on several ranks with sharded parameters (``torch.distributed.fsdp.fully_shard``).

nissa run -m torch.distributed.run --nproc-per-node 2 examples/train_fsdp2.py        # without a change to the script
python -m torch.distributed.run --nproc-per-node 2 examples/train_fsdp2.py --nissa   # with `run.watch`
"""

import argparse

import torch
from spiral_data import classifier, rank_batches
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard

import nissa


def main() -> None:
    """Train a few epochs."""
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--epochs", type=int, default=3)
    arguments.add_argument("--nissa", action="store_true", help="instrument the loop explicitly")
    options = arguments.parse_args()

    distributed.init_process_group("gloo")
    mesh = init_device_mesh("cpu", (distributed.get_world_size(),))
    torch.manual_seed(0)
    training, sampler = rank_batches()
    model = classifier()
    for layer in model.children():
        if isinstance(layer, nn.Linear):
            fully_shard(layer, mesh=mesh)
    fully_shard(model, mesh=mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    run = nissa.start() if options.nissa else None
    if run is not None:
        run.watch(model, optimizer)

    for epoch in range(options.epochs):
        sampler.set_epoch(epoch)
        if run is not None:
            run.begin_epoch(epoch)
        for points, labels in training:
            loss = nn.functional.cross_entropy(model(points), labels)
            optimizer.zero_grad()
            loss.backward()
            if run is not None:
                run.log_loss(loss)
            optimizer.step()
        if run is not None:
            run.end_epoch()
    if run is not None:
        run.close()
    distributed.destroy_process_group()


if __name__ == "__main__":
    main()
