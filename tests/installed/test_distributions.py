"""Wheel and sdist: what they contain, what they say of themselves, and that they work where nothing else is installed."""

import email
import email.message
import re
import sys
import tarfile
import tomllib
import zipfile
from ipaddress import ip_address
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

import nissa
from tests.installed.environments import Environment, build, python_of, run, sources, uv
from tests.support import ROOT

SOURCE = Path(nissa.__file__).parent
NATIVE = {path.name for path in (SOURCE / "kernels" / "native").iterdir()}
VERSION = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
MEBIBYTE = 2**20


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sources(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def built(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(source, tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def sdist(built: Path) -> Path:
    (found,) = built.glob("*.tar.gz")
    return found


@pytest.fixture(scope="module")
def metadata(wheel: Path) -> email.message.Message:
    with zipfile.ZipFile(wheel) as file:
        return email.message_from_bytes(file.read(f"nissa-{VERSION}.dist-info/METADATA"))


def python_versions(metadata: email.message.Message) -> list[str]:
    """Return the releases of Python that the classifiers name."""
    found = (
        re.fullmatch(r"Programming Language :: Python :: (3\.\d+)", each) for each in metadata.get_all("Classifier", [])
    )
    return [each[1] for each in found if each is not None]


def package_files(*, native: bool) -> set[str]:
    """Return the files of the package that are distributed, relative to its parent."""
    kept = {".py", ".typed", ".yaml", ".json", ".jinja", ".css", ".js"} | ({".c", ".h"} if native else set())
    return {
        path.relative_to(SOURCE.parent).as_posix()
        for path in SOURCE.rglob("*")
        if path.suffix in kept and "__pycache__" not in path.parts
    }


def test_the_wheel_has_the_package_with_its_kernel_and_nothing_else(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        names = {name for name in file.namelist() if not name.endswith("/")}
    info = f"nissa-{VERSION}.dist-info/"
    files = {name for name in names if not name.startswith(info)}
    compiled = {name for name in files if Path(name).name.startswith("_native.")}
    assert len(compiled) == 1
    assert files - compiled == package_files(native=False)
    assert {"nissa/py.typed", "nissa/report/assets/page.html.jinja", "nissa/config/presets/standard.yaml"} < files
    assert {name.removeprefix(info) for name in names - files} == {
        "METADATA", "RECORD", "WHEEL", "entry_points.txt", "licenses/LICENSE", "top_level.txt",
    }  # fmt: skip
    assert wheel.stat().st_size < MEBIBYTE


def test_the_sdist_has_the_sources_and_no_tests(sdist: Path) -> None:
    with tarfile.open(sdist) as file:
        names = {member.name for member in file.getmembers() if member.isfile()}
    root = f"nissa-{VERSION}/"
    files = {name.removeprefix(root) for name in names}
    described = {name for name in files if ".egg-info/" in name}
    package = {f"src/{name}" for name in package_files(native=True)}
    assert {name for name in package if name.endswith((".c", ".h"))} == {
        f"src/nissa/kernels/native/{name}" for name in NATIVE
    }
    assert files - described == package | {"CHANGELOG.md", "LICENSE", "MANIFEST.in", "PKG-INFO", "README.md",
        "pyproject.toml", "setup.cfg", "setup.py",
    }  # fmt: skip
    assert sdist.stat().st_size < MEBIBYTE


def test_the_metadata_is_complete_and_names_no_private_host(metadata: email.message.Message) -> None:
    assert (metadata["Name"], metadata["Version"]) == ("nissa", VERSION)
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata["Description-Content-Type"] == "text/markdown"
    assert len(metadata["Summary"]) < 100
    classifiers = metadata.get_all("Classifier", [])
    supported = SpecifierSet(metadata["Requires-Python"])
    versions = [
        each.rpartition(" ")[2] for each in classifiers if re.fullmatch(r"Programming Language :: .* 3\.\d+", each)
    ]
    assert versions
    assert all(each in supported for each in versions)
    assert f"{sys.version_info[0]}.{sys.version_info[1]}" in versions
    assert "Typing :: Typed" in classifiers
    assert not [each for each in classifiers if each.startswith("License ::")]  # the expression replaces it
    for url in re.findall(r"https?://[^\s)>\"'`]+", metadata.as_string()):
        host = urlsplit(url).hostname or ""
        assert host == "localhost" or "." in host, url
        assert not re.fullmatch(r"[\d.]+", host) or ip_address(host).is_loopback, url
        assert not host.endswith((".local", ".internal", ".lan", ".corp")), url


def test_the_version_is_that_of_the_newest_entry_of_the_changelog() -> None:
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    newest = re.search(r"^## (\S+) \((.+)\)$", changelog, re.MULTILINE)
    assert newest is not None
    assert newest[1] == VERSION


def test_every_extra_and_dependency_has_a_lower_bound(metadata: email.message.Message) -> None:
    requirements = [Requirement(each) for each in metadata.get_all("Requires-Dist", [])]
    assert [str(each) for each in requirements if not any(part.operator == ">=" for part in each.specifier)] == []
    assert set(metadata.get_all("Provides-Extra", [])) == {"demo", "instruments", "metrics", "report"}


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    made = Environment.create(tmp_path_factory.mktemp("environment") / "venv")
    made.install(f"nissa @ {wheel.as_uri()}")
    return made


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_wheel_works_in_a_clean_environment(environment: Environment, tmp_path: Path) -> None:
    nissa_command = environment.program("nissa")
    assert run(nissa_command, "--version").stdout.split() == ["nissa", VERSION]
    for mode in ("files", "http/protobuf", "grpc"):
        facts, messages = environment.smoke(mode, tmp_path)
        assert Path(facts["nissa at"]).is_relative_to(environment.folder)
        assert facts["kernel"]
        assert "slower kernel" not in messages
    report = run(nissa_command, "doctor", "--json", cwd=tmp_path).stdout
    assert '"compiled' in report or "compiled" in report
    assert run(nissa_command, "profiles", cwd=tmp_path).stdout


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_sdist_compiles_and_works_in_a_clean_environment(
    environment: Environment, sdist: Path, tmp_path: Path
) -> None:
    environment.install("--reinstall-package", "nissa", "--no-deps", f"nissa @ {sdist.as_uri()}")
    facts, _ = environment.smoke("files", tmp_path)
    assert facts["kernel"]


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_sdist_works_with_every_python_that_the_classifiers_name(
    sdist: Path, metadata: email.message.Message, tmp_path: Path
) -> None:
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    others = {version: python_of(version) for version in python_versions(metadata) if version != own}
    present = {version: python for version, python in others.items() if python is not None}
    for version, python in present.items():
        environment = Environment.create(tmp_path / version, python)
        environment.install(f"nissa @ {sdist.as_uri()}")
        facts, _ = environment.smoke("files", tmp_path)
        assert (facts["python"].rpartition(".")[0], facts["kernel"]) == (version, True)
    if present != others:
        pytest.skip(f"this machine has no Python {', '.join(sorted(set(others) - set(present)))}")


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_a_wheel_that_was_built_without_a_compiler_works_and_warns_once(
    environment: Environment, source: Path, tmp_path: Path
) -> None:
    built = build(source, tmp_path / "dist", "--wheel", CC="/nonexistent/cc")
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as file:
        assert not [name for name in file.namelist() if "_native." in name]
    environment.install("--reinstall-package", "nissa", "--no-deps", f"nissa @ {wheel.as_uri()}")
    facts, messages = environment.smoke("files", tmp_path)
    assert not facts["kernel"]
    assert messages.count("Nissa was installed without a C compiler; install one and reinstall Nissa.") == 1


@pytest.mark.full
@pytest.mark.timeout(1800)
def test_the_extras_resolve_and_what_they_are_for_works(environment: Environment, wheel: Path, tmp_path: Path) -> None:
    environment.install("--reinstall-package", "nissa", f"nissa[demo,instruments,metrics,report] @ {wheel.as_uri()}")
    environment.smoke("files", tmp_path)
    (run_folder,) = (tmp_path / "nissa-runs").iterdir()
    run(environment.program("nissa"), "report", run_folder, "--output", tmp_path / "page.html", cwd=tmp_path)
    assert "gradient" in (tmp_path / "page.html").read_text(encoding="utf-8").lower()
    script = "import nissa, torch\nmeter = nissa.ValidationMeter(2)\nmeter.update(torch.eye(2), torch.tensor([0, 1]))\nprint(meter.result().accuracy)"
    assert run(environment.program("python"), "-P", "-c", script, cwd=tmp_path).stdout.split() == ["1.0"]
    (tmp_path / "train.py").write_text("print('trained')")
    told = run(environment.program("opentelemetry-instrument"), environment.program("python"), "train.py", cwd=tmp_path)
    assert told.stdout == "trained\n"


@pytest.mark.full
def test_the_metadata_passes_the_check_of_the_package_index(built: Path) -> None:
    uv("tool", "run", "twine", "check", "--strict", *sorted(built.glob("nissa-*")))
