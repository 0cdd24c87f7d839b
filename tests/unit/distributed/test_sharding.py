"""What this rank holds of a tensor, as far as one process can tell; see `tests/distributed` for several."""

import subprocess
import sys

import pytest
import torch
from torch import nn
from torch.distributed import ProcessGroup
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel

from nissa.distributed.sharding import Local, locals_of, replicated, unsupported


def test_a_plain_tensor_is_whole_here() -> None:
    parameter, gradient = nn.Parameter(torch.ones(2)), torch.ones(2)
    whole, missing = locals_of([(parameter, gradient), (parameter, None)])
    assert whole.tensor is not None
    assert whole.tensor.data_ptr() == gradient.data_ptr()
    assert (whole.groups, whole.first) == ((), True)
    assert missing == Local(None, (), True)
    assert locals_of([]) == []


def test_what_is_sharded_over_one_rank_is_whole(group: ProcessGroup) -> None:
    model = nn.Linear(3, 2)
    fully_shard(model, mesh=init_device_mesh("cpu", (group.size(),)))
    model(torch.ones(1, 3)).sum().backward()
    (weight, bias) = locals_of([(model.weight, model.weight.grad), (model.bias, None)])
    assert isinstance(model.weight.grad, DTensor)
    assert type(weight.tensor) is torch.Tensor
    assert (weight.groups, weight.first) == ((), True)
    assert bias == Local(None, (), True)


def test_a_replica_is_recognised_compiled_or_not(group: ProcessGroup) -> None:
    model = nn.Linear(3, 2)
    replica = DistributedDataParallel(model)
    assert replicated(replica) is group
    compiled = torch.compile(replica)
    assert isinstance(compiled, nn.Module)
    assert compiled is not replica
    assert replicated(compiled) is group
    assert replicated(model) is None


@pytest.mark.filterwarnings("ignore:FSDP is switching to use `NO_SHARD`")
def test_flat_parameters_are_refused_with_what_to_do(group: ProcessGroup) -> None:
    assert unsupported(nn.Linear(3, 2)) is None
    inner = FullyShardedDataParallel(nn.Linear(3, 2), process_group=group, device_id=torch.device("cpu"))
    for model in (inner, nn.Sequential(inner)):
        assert "fully_shard()" in (unsupported(model) or "")


def test_a_process_that_shards_nothing_does_not_import_what_shards() -> None:
    body = (
        "import sys, torch; from nissa.distributed.sharding import locals_of, replicated, unsupported;"
        "model = torch.nn.Linear(1, 1); locals_of([(model.weight, model.weight)]);"
        "assert replicated(model) is unsupported(model) is None;"
        "print('torch.distributed.tensor' in sys.modules, 'torch.distributed.fsdp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", body], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
