"""The exit status of a process as an exit handler sees it, compared with the one that the process really has."""

import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from nissa.run.exit_status import ExitWatch, RunEnd, status_of
from tests.cases import for_each

SCRIPT = """
import atexit, sys
from nissa.run.exit_status import ExitWatch
watch = ExitWatch()
def show():
    end = watch.at_exit()
    print(end.error, end.status)
atexit.register(show)
def main():
    {body}
{call}
"""

ENDS = [
    ("pass", "main()", "None 0", 0),
    ("return 0", "sys.exit(main())", "None 0", 0),
    ("return None", "sys.exit(main())", "None 0", 0),
    ("sys.exit(3)", "main()", "exit status 3", 3),
    ("sys.exit(256)", "main()", "None 0", 0),
    ("sys.exit('a message')", "main()", "exit status 1", 1),
    ("1 / 0", "main()", "ZeroDivisionError", 1),
    ("raise KeyboardInterrupt", "main()", "KeyboardInterrupt", -2),
    ("sys.exit(3)", "try: main()\nexcept SystemExit: pass", "None 0", 0),
    # Python code cannot know these statuses: none is invented.
    ("raise SystemExit(3)", "main()", "None None", 3),
    ("raise SystemExit(0)", "main()", "None None", 0),
]


@for_each("end", ENDS)
@pytest.mark.parametrize("how", ["script", "module"])
def test_the_end_is_the_one_that_the_process_has(
    end: tuple[str, str, str, int], how: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    body, call, seen, status = end
    folder = tmp_path_factory.mktemp("s")
    (folder / "train.py").write_text(SCRIPT.format(body=body, call=call))
    command = ["train.py"] if how == "script" else ["-m", "train"]
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == status, done.stderr
    shown = done.stdout.split("\n")[0]
    assert shown.startswith(seen), done.stdout
    if shown.endswith(" 0"):
        assert done.returncode == 0


def test_a_spawned_process_whose_function_raises_has_failed(tmp_path: Path) -> None:
    (tmp_path / "worker.py").write_text(SCRIPT.format(body="pass", call="def work(): 1 / 0"))
    (tmp_path / "parent.py").write_text(
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    from worker import work\n"
        "    process = multiprocessing.get_context('spawn').Process(target=work)\n"
        "    process.start(); process.join(); print('parent', process.exitcode)\n"
    )
    done = subprocess.run([sys.executable, "parent.py"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "exit status 1 1" in done.stdout
    assert "parent 1" in done.stdout


def test_sys_exit_is_restored_unless_somebody_else_has_replaced_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = sys.exit
    watch = ExitWatch()
    assert sys.exit is not before
    with pytest.raises(SystemExit) as raised:
        sys.exit(4)
    assert raised.value.code == 4
    watch.close()
    assert sys.exit is before
    monkeypatch.setattr(sys, "exit", before)  # which is restored after the test
    watch = ExitWatch()
    other = sys.exit = lambda *_: None  # type: ignore[assignment]
    watch.close()
    assert sys.exit is other


def test_an_exit_of_another_thread_is_none_of_the_process() -> None:
    watch = ExitWatch()
    try:
        thread = threading.Thread(target=_exit_quietly)
        thread.start()
        thread.join()
        assert watch._codes == []
    finally:
        watch.close()


def _exit_quietly() -> None:
    with suppress(SystemExit):
        sys.exit(3)


@for_each("code, status", [(None, 0), (0, 0), (True, 1), (3, 3), (-1, 255), (256, 0), ("text", 1), (2.5, 1)])
def test_a_code_has_the_status_that_python_gives_it(code: object, status: int) -> None:
    assert status_of(code) == status


def test_an_exception_that_leaves_the_block_of_a_run_is_its_end() -> None:
    assert RunEnd.of_exception(ValueError()) == RunEnd("ValueError", 1)
    assert RunEnd.of_exception(SystemExit(3)) == RunEnd("exit status 3", 3)
    assert RunEnd.of_exception(SystemExit()) == RunEnd(None, 0)
    assert RunEnd.of_exception(KeyboardInterrupt()) == RunEnd("KeyboardInterrupt", None)
