"""Thread that compares replicas: a store that is lost, and what is published meanwhile, harm nobody."""

import logging
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from torch import distributed

from nissa.distributed import replica_thread
from nissa.distributed.replica_groups import Cohort, Source, group_of, several_ranks, trains_locally
from nissa.distributed.replica_reports import Comparison, Detail, Summary
from nissa.distributed.replica_thread import Channel, ReplicaThread
from tests.support import until

COHORT = Cohort(ranks=(0, 1), source=Source.WRAPPER, rows=(0,), data=True)
DETAIL = Detail(names=["a\tfloat32\t(1,)"], digests=["x"])


class Lost:
    """Store whose connection is lost."""

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError("connection reset by peer")


class Hanging:
    """Store whose server does not answer for a while."""

    def __getattr__(self, name: str) -> Any:
        until(lambda: self.over, "the end of the test", timeout=60)
        raise RuntimeError("timed out")

    over = False


@pytest.fixture
def group(tmp_path: Path) -> Iterator[None]:
    """Be the first of two ranks whose other one never comes."""
    store = distributed.FileStore(str(tmp_path / "store"), 1)  # type: ignore[attr-defined]  # not marked as exported
    distributed.init_process_group("gloo", store=store, rank=0, world_size=1, timeout=timedelta(seconds=30))
    yield
    if distributed.is_initialized():
        distributed.destroy_process_group()


def summary(key: int = 0) -> Summary:
    return Summary(key=key, step=key, at=0, weights="x")


@pytest.mark.usefixtures("group")
def test_a_lost_store_is_logged_once_and_later_reports_are_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(replica_thread, "default_store", Lost)
    results: list[Comparison] = []
    thread = ReplicaThread()
    channel = Channel.of("run", COHORT, results.append)
    with caplog.at_level(logging.WARNING, "nissa"):
        for key in range(3):
            thread.publish(channel, summary(key), DETAIL)
        until(lambda: len(results) >= 3, "the results")
    thread.close(1.0)
    assert {each.outcome for each in results} == {"failed"}
    (message,) = [record.getMessage() for record in caplog.records if "compared" in record.getMessage()]
    assert "the store of the process group failed (RuntimeError: connection reset by peer)" in message


@pytest.mark.usefixtures("group")
def test_publishing_and_the_end_never_wait_for_a_store_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Hanging()
    monkeypatch.setattr(replica_thread, "default_store", lambda: store)
    monkeypatch.setattr(replica_thread, "own_connection", lambda found, _: found.clone())
    results: list[Comparison] = []
    thread = ReplicaThread()
    channel = Channel.of("run", COHORT, results.append)
    began = monotonic()
    for key in range(400):
        thread.publish(channel, summary(key), DETAIL)
    assert {each.outcome for each in results} == {"incomplete"}  # those beyond the limit
    assert len(results) >= 100
    thread.close(0.1)
    assert monotonic() - began < 30
    store.over = True


@pytest.mark.usefixtures("group")
def test_the_end_of_the_server_is_survived(monkeypatch: pytest.MonkeyPatch) -> None:
    kind: Any = distributed.TCPStore  # type: ignore[attr-defined]  # not marked as exported
    servers = [kind("127.0.0.1", 0, is_master=True, wait_for_workers=False)]
    client = kind("127.0.0.1", servers[0].port, is_master=False, wait_for_workers=False)
    monkeypatch.setattr(replica_thread, "default_store", lambda: client)
    results: list[Comparison] = []
    thread = ReplicaThread()
    channel = Channel.of("run", COHORT, results.append)
    thread.publish(channel, summary(), DETAIL)
    until(lambda: client.check([f"nissa/replicas/{channel.title}/report/0/0"]), "the report")
    servers.clear()  # nobody else holds it, so that it stops
    until(lambda: results, "the failure")
    thread.publish(channel, summary(1), DETAIL)
    until(lambda: len(results) > 1, "the second failure")
    thread.close(1.0)
    assert {each.outcome for each in results} == {"failed"}


@pytest.mark.usefixtures("group")
def test_a_process_group_that_was_destroyed_is_survived() -> None:
    results: list[Comparison] = []
    thread = ReplicaThread()
    distributed.destroy_process_group()
    thread.publish(Channel.of("run", COHORT, results.append), summary(), DETAIL)
    until(lambda: results, "the result")
    thread.close(1.0)
    assert {each.outcome for each in results} == {"failed"}


@pytest.mark.usefixtures("group")
def test_the_end_removes_what_the_rank_has_written() -> None:
    results: list[Comparison] = []
    thread = ReplicaThread()
    channel = Channel.of("run", COHORT, results.append)
    thread.publish(channel, summary(), DETAIL)
    store = distributed.distributed_c10d._get_default_store()
    key = f"nissa/replicas/{channel.title}/report/0/0"
    until(lambda: store.check([key]), "the report")
    thread.close(1.0)
    assert not store.check([key])
    assert [each.outcome for each in results] == ["incomplete"]


def test_titles_are_the_same_on_all_ranks_and_different_for_each_channel() -> None:
    one, other = (Channel.of("same name", COHORT, print) for _ in range(2))
    assert one.title != other.title
    assert one.title.startswith("same name/0-1/")
    many = Cohort(ranks=tuple(range(64)), source=Source.WRAPPER, rows=(0,), data=True)
    assert len(Channel.of("many", many, print).title) < 64


def test_without_a_process_group_nothing_is_compared() -> None:
    assert not several_ranks()


def test_the_argument_of_watch_is_checked() -> None:
    assert group_of(None) is None
    assert group_of("auto") == "auto"
    with pytest.raises(TypeError, match="is a str; pass a process group"):
        group_of("all")
    with pytest.raises(TypeError, match="is a list; pass a process group"):
        group_of([0, 1])


def test_optimizers_that_train_locally_are_known_by_their_class() -> None:
    class PostLocalSGDOptimizer:
        pass

    class Derived(PostLocalSGDOptimizer):
        pass

    assert trains_locally([object(), Derived()])
    assert not trains_locally([object()])
