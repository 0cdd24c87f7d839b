"""The compiled kernel as processors with fewer vector instructions run it."""

import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nissa.kernels import cpu, native, squares
from tests.unit.kernels.agreement import DTYPES, LAYOUTS, SHAPED, agrees, edges_of, spread

SOURCES = sorted((Path(native.__file__).parent / "native").glob("*.c"))
COMPILER = shutil.which("cc")
pytestmark = pytest.mark.skipif(COMPILER is None, reason="there is no C compiler")


@pytest.fixture(scope="module", params=["NO_AVX512", "NO_AVX"])
def older(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The C functions, compiled without some instructions."""
    library = tmp_path_factory.mktemp("native") / f"{request.param}{sysconfig.get_config_var('SHLIB_SUFFIX')}"
    options = ("-std=gnu11", "-O3", "-fno-math-errno", "-fassociative-math", "-fno-signed-zeros", "-fno-trapping-math")
    command = [
        str(COMPILER),
        *options,
        f"-D{request.param}",
        "-shared",
        "-fPIC",
        *map(str, SOURCES),
        "-o",
        str(library),
    ]
    subprocess.run(command, check=True)
    return native.load(str(library), keep_gil=False)


@pytest.fixture(autouse=True)
def _chosen(older: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "library", lambda **_: older)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_edges_and_long_tensors_agree(layout: Any, dtype: torch.dtype) -> None:
    numbers = spread(70_000, seed=1).to(dtype)
    numbers[5000] = torch.nan
    agrees(cpu.measure, [edges_of(layout, dtype), numbers, numbers[:17], numbers[3:5003]], layout)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta")
def test_all_layouts_of_tensors_agree() -> None:
    agrees(cpu.measure, [make() for make in SHAPED.values()])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_norms_and_their_change_agree(dtype: torch.dtype) -> None:
    before, after = (torch.randn(5001, generator=torch.Generator().manual_seed(seed)).to(dtype) for seed in (1, 2))
    copies = squares.Copies([before])
    of_before = squares.squares([before], copies.addresses(), write=True)
    of_change = squares.squares([after], copies.addresses())
    expected = [before.double().square().sum().item(), (after.double() - before.double()).square().sum().item()]
    np.testing.assert_allclose([of_before[0], of_change[0]], expected, rtol=1e-12)
