"""A rank that dies is visible within two export intervals: it exports no more, while the others go on."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from time import sleep, time

from scripts.stack import Stack
from tests.preloaded import Process
from tests.stack.queries import Past, samples
from tests.stack.training import TRANSPORTS, environment, service_name, start
from tests.support import until

INTERVAL = 3.0
"""Seconds between two exports of metrics."""


@contextmanager
def ended(process: Process) -> Iterator[Process]:
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_a_rank_that_dies_is_visible_within_two_export_intervals(stack: Stack, tmp_path: Path) -> None:
    service = service_name("ranks")
    given = environment(stack, TRANSPORTS[0], service) | {"WORLD_SIZE": "2"}
    given["OTEL_METRIC_EXPORT_INTERVAL"] = str(round(INTERVAL * 1000))
    alive = f'max by (dl_rank) (timestamp(nissa_hub_queue_size{{job="{service}"}}))'
    with ExitStack() as processes:
        ranks = []
        for rank in ("0", "1"):
            folder = tmp_path / rank
            folder.mkdir()
            process = start("endless", folder, given | {"RANK": rank, "LOCAL_RANK": rank})
            ranks.append(processes.enter_context(ended(process)))
        until(lambda: len(samples(stack, alive)) == 2, "both ranks")
        ranks[1].kill()
        died = time()
        sleep(3 * INTERVAL)  # what is asked about the moment below has arrived by now
    found = Past(stack, died + 2 * INTERVAL).samples(f"time() - {alive}")
    silent = {each["metric"]["dl_rank"]: float(each["value"][1]) for each in found}
    assert silent["1"] > 1.5 * INTERVAL > silent["0"]
