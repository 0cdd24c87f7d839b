"""Rank and run id of processes that a launcher, or the script itself, has started."""

import json
import logging
from pathlib import Path

import pytest
from torch import distributed
from torch.multiprocessing.spawn import spawn

from nissa.distributed.rank import Rank
from tests.support import lines


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, Rank()),
        ({"RANK": "1", "LOCAL_RANK": "0", "WORLD_SIZE": "2"}, Rank(1, 0, 2)),
        ({"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_NTASKS": "4"}, Rank(3, 1, 4)),
        ({"RANK": "5", "WORLD_SIZE": "8", "SLURM_LOCALID": "0", "SLURM_NTASKS": "2"}, Rank(5, None, 8)),
        ({"RANK": "first", "OMPI_COMM_WORLD_RANK": "2"}, Rank(2, None, None)),
    ],
    ids=["none", "torchrun", "Slurm", "torchrun within Slurm", "no number"],
)
def test_the_variables_of_one_launcher_are_read(environ: dict[str, str], expected: Rank) -> None:
    assert Rank.from_environment(environ) == expected


@pytest.mark.usefixtures("group")
def test_a_process_group_has_precedence_and_a_contradiction_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    assert Rank.discover({}) == Rank(0, None, 1)
    assert Rank.discover({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}) == Rank(0, 0, 1)
    assert not caplog.records
    with caplog.at_level(logging.WARNING, "nissa"):
        assert Rank.discover({"SLURM_PROCID": "1", "SLURM_LOCALID": "0", "SLURM_NTASKS": "2"}) == Rank(0, None, 1)
    assert "rank 0 of 1 in the process group, but rank 1 of 2 in the environment" in caplog.text


def train(rank: int, folder: str) -> None:
    """One of two spawned ranks: it starts two runs, one after the other."""
    import nissa  # noqa: PLC0415 - in the child
    from tests.toys import Toy  # noqa: PLC0415

    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    ids = []
    for _ in range(2):
        with nissa.start("standard", files__directory=f"{folder}/runs", console__enabled=False) as run:
            toy = Toy(rank)
            run.watch(toy.model, toy.optimizer)
            toy.step(run)
            ids.append(run.run_id)
    (Path(folder) / f"ids{rank}.json").write_text(json.dumps(ids), encoding="utf-8")
    distributed.barrier()
    distributed.destroy_process_group()


def test_spawned_ranks_have_one_run_id_and_files_of_their_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NISSA_RUN_ID", "TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    spawn(train, args=(str(tmp_path),), nprocs=2)  # type: ignore[no-untyped-call]
    one, other = (json.loads((tmp_path / f"ids{rank}.json").read_text()) for rank in (0, 1))
    assert one == other
    assert len(set(one)) == 2
    for run_id in one:
        for rank in (0, 1):
            (resource, *_) = [
                each["resourceMetrics"][0]["resource"]
                for each in lines(tmp_path / "runs" / run_id / f"metrics-rank{rank}.jsonl")
            ]
            found = {each["key"]: each["value"] for each in resource["attributes"]}
            assert found["dl.rank"] == {"intValue": str(rank)}
