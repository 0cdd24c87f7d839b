"""Trace context of a launcher, agreed between ranks."""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pytest
from torch import distributed

from nissa.testing import Span
from tests.distributed.launching import run_ranks
from tests.support import spans

TRACE, PARENT, OTHER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331", "1" * 32
HEADER = f"00-{TRACE}-{PARENT}-01"


def train(rank: int, folder: str) -> None:
    """One of two ranks; they start their runs one after the other, rank 0 first."""
    import nissa  # noqa: PLC0415 - in the child
    from tests.toys import Toy  # noqa: PLC0415

    distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    lines: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("nissa").addHandler(handler)
    found: dict[str, Any] = {}

    def start(name: str, header: str | None) -> None:
        os.environ.pop("TRACEPARENT", None)
        if header is not None:
            os.environ["TRACEPARENT"] = header
        if rank == 1:
            distributed.barrier()
        run = nissa.start("standard", files__directory=f"{folder}/{name}", console__enabled=False)
        if rank == 0:
            distributed.barrier()
        toy = Toy(rank)
        with run:
            run.watch(toy.model, toy.optimizer)
            with run.epoch(0):
                toy.step(run)
            run.germinate("s")
            distributed.barrier()
        found[name] = [run.run_id, *lines]
        lines.clear()

    start("first_has_one", HEADER if rank == 0 else None)
    start("same", HEADER)
    start("first_has_none", None if rank == 0 else HEADER)
    start("another", HEADER if rank == 0 else f"00-{OTHER}-{PARENT}-01")
    if rank == 0:  # for example a warm-up on one rank
        with nissa.start(files__directory=f"{folder}/alone", console__enabled=False) as run:
            found["alone"] = [run.run_id]
    distributed.barrier()
    start("more_runs_on_one_rank", None)
    (Path(folder) / f"found{rank}.json").write_text(json.dumps(found), encoding="utf-8")
    distributed.barrier()
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("ranks")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("NISSA_RUN_ID", "TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "TRACEPARENT", "TRACESTATE"):
            patch.delenv(name, raising=False)
        run_ranks("tests.distributed.test_trace_context", "train", path)
    return path


def found(folder: Path, name: str) -> tuple[list[str], list[str]]:
    """Return the run ids of both ranks, and what both have logged."""
    both = [json.loads((folder / f"found{rank}.json").read_text())[name] for rank in (0, 1)]
    return [each[0] for each in both], [line for each in both for line in each[1:]]


def exported(folder: Path, name: str, rank: int) -> list[Span]:
    (run,) = {path.parent for path in (folder / name).rglob(f"traces-rank{rank}.jsonl")}
    return [span for span in spans(run, f"traces-rank{rank}.jsonl") if not span.name.endswith(".started")]


@pytest.mark.parametrize("name", ["first_has_one", "same"])
@pytest.mark.parametrize("rank", [0, 1])
def test_all_ranks_have_the_context_of_the_first(folder: Path, name: str, rank: int) -> None:
    one, other = found(folder, name)[0]
    assert one == other
    assert found(folder, name)[1] == []
    exported_spans = exported(folder, name, rank)
    (run,) = (span for span in exported_spans if span.name == "run")
    assert (run.trace_id, run.parent_id) == (TRACE, PARENT)
    roots = [span for span in exported_spans if span.parent_id is None]
    assert {span.name for span in roots} == {"epoch", "seed"}
    assert all((TRACE, PARENT) in span.links for span in roots)
    assert TRACE not in {span.trace_id for span in roots}


def test_a_context_that_is_not_used_is_logged(folder: Path) -> None:
    (line,) = found(folder, "first_has_none")[1]
    assert "the first rank to start the run has none" in line
    assert not any(
        span.name == "run" or span.links for rank in (0, 1) for span in exported(folder, "first_has_none", rank)
    )
    (line,) = found(folder, "another")[1]
    assert "has another one" in line
    for rank in (0, 1):
        assert {span.trace_id for span in exported(folder, "another", rank) if span.name == "run"} == {TRACE}


def test_ranks_that_start_different_numbers_of_runs_are_logged(folder: Path) -> None:
    (zero, one), lines = found(folder, "more_runs_on_one_rank")
    alone = json.loads((folder / "found0.json").read_text())["alone"][0]
    assert zero != one == alone
    (line,) = lines
    assert f"This rank joins the run {alone}, which has already ended on another rank" in line
