"""``nissa run``: a script does what it does without it."""

import gzip
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from nissa.journal import frames
from tests.support import only_run, points, until

BIN = Path(sys.executable).parent
TRAINING = """
import torch
model = torch.nn.Linear(3, 1); optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
for _ in range(3):
    optimizer.zero_grad(); model(torch.ones(2, 3)).mean().backward(); optimizer.step()
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__init__.py").touch()
    return tmp_path


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "NISSA_PROFILE": "diagnostic", **more}


def ended(*command: str, folder: Path, **environ: str) -> tuple[int, str, str]:
    done = subprocess.run(
        command, cwd=folder, env=environment(**environ), capture_output=True, text=True, check=False, timeout=240
    )
    return done.returncode, done.stdout, done.stderr


def with_and_without(folder: Path, body: str, *arguments: str, module: bool = False) -> list[tuple[int, str, str]]:
    """Run a script as ``python`` and as ``nissa run`` do, and return status, output and errors of both."""
    path = folder / ("package/script.py" if module else "script.py")
    path.write_text(textwrap.dedent(body))
    what = ["-m", "package.script"] if module else ["script.py"]
    return [
        ended(*command, *what, *arguments, folder=folder) for command in ([sys.executable], [str(BIN / "nissa"), "run"])
    ]


@pytest.mark.parametrize("module", [False, True], ids=["script", "module"])
def test_arguments_path_and_main_module_are_the_same(folder: Path, module: bool) -> None:
    plain, observed = with_and_without(
        folder,
        """
        import sys, __main__
        print(sys.argv, sys.path, __name__, __file__, getattr(__main__.__spec__, 'name', None), sys.flags, sys.orig_argv[1:])
        print(sorted(name for name in vars(__main__) if name != "sys"))
        """,
        "--lr", "1", "-m", "--profile", "x", "--", "--help",
        module=module,
    )  # fmt: skip
    assert plain[0] == 0
    assert observed == plain


@pytest.mark.parametrize(
    "body",
    [
        "raise SystemExit(3)",
        "raise SystemExit('a message')",
        "import os; os._exit(4)",
        "1 / 0",
        "import absent_module",
        "x =",
    ],
)
def test_the_exit_status_and_the_traceback_are_the_same(folder: Path, body: str) -> None:
    plain, observed = with_and_without(folder, body)
    assert plain[0] != 0
    assert observed == plain


def test_the_users_own_sitecustomize_and_path_are_kept(folder: Path) -> None:
    (folder / "own").mkdir()
    (folder / "own" / "sitecustomize.py").write_text("print('of the user')")
    (folder / "script.py").write_text("import sys; print(sys.path[:2], sys.modules['sitecustomize'].__file__)")
    path = {"PYTHONPATH": str(folder / "own")}
    plain = ended(sys.executable, "script.py", folder=folder, **path)
    assert plain[1].startswith("of the user")
    status, out, err = ended(str(BIN / "nissa"), "run", "script.py", folder=folder, **path)
    # The command itself is a Python process as well, before it becomes the script.
    assert (status, out.removeprefix("of the user\n"), err) == plain


def test_a_signal_ends_the_script_itself(folder: Path) -> None:
    (folder / "script.py").write_text("import time, pathlib; pathlib.Path('ready').touch(); time.sleep(60)")
    process = subprocess.Popen([BIN / "nissa", "run", "script.py"], cwd=folder, env=environment())
    until((folder / "ready").exists, "the script")
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == -signal.SIGTERM


def test_mistakes_are_errors_before_the_script_begins(folder: Path) -> None:
    (folder / "script.py").write_text("print('ran')")
    status, out, err = ended(str(BIN / "nissa"), "run", "--profile", "dignostic", "script.py", folder=folder)
    assert (status, out) == (2, "")
    assert "diagnostic" in err
    status, _, err = ended(str(BIN / "nissa"), "run", folder=folder)
    assert status == 2
    assert "nissa run train.py" in err


def test_a_process_that_imports_no_torch_imports_nothing_of_ours(folder: Path) -> None:
    (folder / "script.py").write_text(
        "import sys; print([n for n in ('torch', 'numpy', 'pydantic', 'opentelemetry.sdk') if n in sys.modules])"
    )
    assert ended(str(BIN / "nissa"), "run", "script.py", folder=folder) == (0, "[]\n", "")


@pytest.mark.full
def test_a_traceback_through_backward_and_a_loader_has_no_frame_of_ours(folder: Path) -> None:
    plain, observed = with_and_without(
        folder,
        """
        import torch, traceback
        from torch.utils.data import DataLoader
        class Data(torch.utils.data.Dataset):
            def __len__(self): return 4
            def __getitem__(self, index): return 1 / (2 - index)
        for fails in (lambda: torch.ones(2, requires_grad=True).exp().backward(), lambda: list(DataLoader(Data()))):
            try: fails()
            except Exception: traceback.print_exc()
        loss = torch.nn.Linear(1, 1)(torch.ones(1)).sum(); loss.backward(); loss.backward()
        """,
    )
    assert plain[0] == 1
    assert plain[2].count("Traceback") >= 3
    assert observed == plain


def test_opentelemetry_instrument_observes_the_same(folder: Path) -> None:
    (folder / "script.py").write_text(TRAINING)
    command = str(BIN / "opentelemetry-instrument")
    off = {"OTEL_TRACES_EXPORTER": "none", "OTEL_METRICS_EXPORTER": "console", "OTEL_LOGS_EXPORTER": "none"}
    status, out, err = ended(command, "python", "script.py", folder=folder, PATH=f"{BIN}:{os.environ['PATH']}", **off)
    assert status == 0, err
    assert '"nissa.gradient.norm"' in out
    assert '"nissa.loss"' in out


def test_telemetry_beside_a_distro_is_kept_where_no_collector_answers(folder: Path) -> None:
    (folder / "script.py").write_text(TRAINING)
    command = str(BIN / "opentelemetry-instrument")
    nowhere = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:9", "OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
    path = f"{BIN}:{os.environ['PATH']}"
    status, _, err = ended(command, "python", "script.py", folder=folder, PATH=path, **nowhere)
    assert status == 0, err
    kept = b"".join(gzip.decompress(frame.payload) for frame in frames(only_run(folder) / "spool"))
    assert b"nissa.run.id" in kept
    assert b"nissa.step" in kept


@pytest.mark.full
def test_ranks_of_torchrun_are_observed(folder: Path) -> None:
    (folder / "ddp.py").write_text(
        "import torch.distributed as dist; dist.init_process_group('gloo')\n"
        + TRAINING.replace("for _", "model = torch.nn.parallel.DistributedDataParallel(model)\nfor _")
        + "dist.destroy_process_group()\n"
    )
    status, _, err = ended(
        str(BIN / "nissa"), "run", "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "29713",
        "ddp.py", folder=folder,
    )  # fmt: skip
    assert status == 0, err
    run = only_run(folder)
    for rank in (0, 1):
        assert len(points(run, "nissa.step", f"metrics-rank{rank}.jsonl")) == 3


@pytest.mark.full
def test_spawned_children_are_observed(folder: Path) -> None:
    body = textwrap.indent(TRAINING.strip().partition("\n")[2], "    ")
    (folder / "spawn.py").write_text(
        f"import torch, torch.multiprocessing as mp\ndef train(rank):\n{body}\n"
        "if __name__ == '__main__': mp.spawn(train, nprocs=2)\n"
    )
    status, _, err = ended(str(BIN / "nissa"), "run", "spawn.py", folder=folder)
    assert status == 0, err
    runs = list((folder / "nissa-runs").iterdir())
    assert [len(points(run, "nissa.step")) for run in runs] == [3, 3]
