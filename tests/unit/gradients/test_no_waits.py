"""No code of ours waits for a device, but for the one file that may, and those that run when the caller asks for a result.

The rule: in a module that knows torch (imports it, be it for types alone), nothing calls what makes torch copy to the
host and wait. Modules that do not know torch hold host numbers, where the same names are numpy's and wait for nothing.
Left out is the demonstration, which is a training loop like a user's.
"""

import ast
from pathlib import Path

import pytest

import nissa
from tests.cases import for_each

ROOT = Path(nissa.__file__).parent
ASKED = {
    "diagnostics/meter.py",
    "diagnostics/sharpness/compiled.py",
    "diagnostics/sharpness/perturbation.py",
    "diagnostics/sharpness/update.py",
}
"""What ``validate(meter=..., closure=...)`` calls, whose answer is a number on the host; see docs/decisions/0015."""

MAY_WAIT = {"kernels/transfer.py"} | ASKED
LEFT_OUT = "demo/"
WAITING = {"item", "tolist", "cpu", "numpy", "synchronize"}

MODULES = sorted(
    name
    for path in ROOT.rglob("*.py")
    if not (name := path.relative_to(ROOT).as_posix()).startswith(LEFT_OUT) and name not in MAY_WAIT
)


def waits(source: str) -> list[str]:
    """What a module calls that waits for a device, with line numbers; nothing where it does not know torch."""
    tree = ast.parse(source)
    if not any(_imports_torch(node) for node in ast.walk(tree)):
        return []
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    return [f"{call.lineno}: {ast.unparse(call)}" for call in calls if _waits(call)]


def _imports_torch(node: ast.AST) -> bool:
    if isinstance(node, ast.Import):
        return any(alias.name.split(".")[0] == "torch" for alias in node.names)
    return isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch"


def _waits(call: ast.Call) -> bool:
    assert isinstance(call.func, ast.Attribute)
    if call.func.attr in WAITING:
        return True
    given = [*call.args, *(keyword.value for keyword in call.keywords)]
    # `tensor.to("cpu")` is `tensor.cpu()`; `torch.zeros(..., device="cpu")` and the like make new tensors.
    return call.func.attr == "to" and any(isinstance(each, ast.Constant) and each.value == "cpu" for each in given)


@for_each("name", MODULES)
def test_nothing_waits_for_a_device(name: str) -> None:
    assert waits((ROOT / name).read_text()) == []


@pytest.mark.parametrize("name", sorted(MAY_WAIT))
def test_what_may_wait_does(name: str) -> None:
    assert waits((ROOT / name).read_text())


@pytest.mark.parametrize(
    "statement",
    [
        "x.item()",
        "x.y.tolist()",
        "f(x).cpu()",
        "x.detach().numpy()",
        "torch.cuda.synchronize()",
        "event.synchronize()",
        "x.to('cpu')",
        "x.to(device='cpu')",
    ],
)
@pytest.mark.parametrize(
    "preamble",
    ["import torch", "from torch import nn", "import torch.nn as nn", "if TYPE_CHECKING:\n    import torch"],
)
def test_the_rule_finds_a_wait(preamble: str, statement: str) -> None:
    found = waits(f"{preamble}\ndef f(x):\n    return {statement}\n")
    assert len(found) == 1
    assert found[0].endswith(statement)


@pytest.mark.parametrize("statement", ["values.tolist()", "value.item()"])
def test_host_numbers_are_free(statement: str) -> None:
    assert waits(f"import numpy as np\nfrom torchless import x\n{statement}\n") == []


@pytest.mark.parametrize(
    "statement", ["x.items()", "x.to(torch.float64)", "torch.zeros(1, device='cpu')", "x.to(device)"]
)
def test_the_rule_leaves_the_rest_alone(statement: str) -> None:
    assert waits(f"import torch\n{statement}\n") == []


def test_the_modules_that_know_torch_are_looked_at() -> None:
    assert {"gradients/capture.py", "gradients/collector.py", "kernels/reference.py", "run/environment.py"} <= set(
        MODULES
    )
