"""Section about the run itself: configuration, program, machine, packages, and memory over time."""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from nissa.charts import lines
from nissa.charts.series import Series
from nissa.report.learning import MOST_SERIES, summary
from nissa.report.panels import PageSection, Panel, Table, TableRow, Variant, series_table
from nissa.report.run_summary import RunSummary
from nissa.semconv import attributes as attr
from nissa.semconv import metrics as metric
from nissa.semconv.metrics import MetricSpec

_GIB: Final = 2.0**30
_HEAD: Final = ("name", "value")
_PROGRAM: Final = {
    attr.COMMAND_ARGS: "command line",
    attr.WORKING_DIRECTORY: "working directory",
    attr.VCS_REVISION: "git commit",
    attr.VCS_REFERENCE: "git branch",
    attr.RUNTIME_VERSION: "Python",
    attr.PROCESS_ID: "process",
}
_MACHINE: Final = {
    attr.HOST_NAME: "host",
    attr.OS_TYPE: "system",
    attr.OS_VERSION: "kernel",
    attr.CPU_NAME: "processor",
    attr.CPU_COUNT: "processors in use",
}
_NO_DESCRIPTION: Final = "The process was not described: process.describe is off, or an older version wrote the run."
_NO_CONFIGURATION: Final = "no hyperparameters were passed: call nissa.start(run_config={...})"


def program(run: RunSummary) -> PageSection:
    """Return the section."""
    described = _described(run)
    tables = [_configuration(run)]
    if described:
        tables += [_program(run, described), _machine(run, described), _packages(described)]
    return PageSection(
        key="run",
        title="Run",
        tables=[table for table in tables if table.rows],
        panels=[_process_memory(run), _device_memory(run)],
        note="" if described else _NO_DESCRIPTION,
    )


def _configuration(run: RunSummary) -> Table:
    prefix = f"{attr.RUN_CONFIG}."
    found: dict[str, dict[str, None]] = {}
    for record in run.recording.logs:
        for name, value in record.attributes.items():
            if name.startswith(prefix):
                found.setdefault(name.removeprefix(prefix), {})[_text(value)] = None
    rows = [TableRow((name, " / ".join(values))) for name, values in sorted(found.items())]
    rows = rows or [TableRow(("run configuration", _NO_CONFIGURATION))]
    profile = run.resource(attr.PROFILE)
    rows += [TableRow(("nissa profile", profile))] if profile else []
    caption = "Hyperparameters; values that differ between processes are separated by /"
    return Table(caption, _HEAD, tuple(rows), title="Configuration")


def _described(run: RunSummary) -> dict[str, list[str]]:
    """Return the attributes that describe the processes, each with its different values."""
    found: dict[str, dict[str, None]] = {}
    for record in run.descriptions:
        for name, value in record.attributes.items():
            found.setdefault(name, {})[_argument_line(value) if name == attr.COMMAND_ARGS else _text(value)] = None
    return {name: list(values) for name, values in found.items()}


def _program(run: RunSummary, described: Mapping[str, list[str]]) -> Table:
    ranks = run.resource(attr.WORLD_SIZE)
    commit = [] if attr.VCS_REVISION in described else [TableRow(("git commit", "no repository was found"))]
    rows = [*_rows(_PROGRAM, described), *commit, *([TableRow(("ranks", ranks))] if ranks else [])]
    return Table("Program", _HEAD, tuple(rows), title="Program")


def _machine(run: RunSummary, described: Mapping[str, list[str]]) -> Table:
    names = dict.fromkeys(
        f"{stream.attributes.get(attr.DEVICE)}: {stream.attributes.get(attr.DEVICE_NAME)}"
        for _, stream in run.streams(metric.DEVICE_MEMORY)
    )
    device = ", ".join(names) or "no CUDA device was used"
    return Table("Machine", _HEAD, (*_rows(_MACHINE, described), TableRow(("device", device))), title="Machine")


def _packages(described: Mapping[str, list[str]]) -> Table:
    prefix = f"{attr.PACKAGE}."
    names = {name: name.removeprefix(prefix) for name in described if name.startswith(prefix)}
    return Table("Versions of packages", ("package", "version"), tuple(_rows(names, described)), title="Packages")


def _rows(names: Mapping[str, str], described: Mapping[str, list[str]]) -> Iterable[TableRow]:
    return [TableRow((label, " / ".join(described[name]))) for name, label in names.items() if described.get(name)]


def _argument_line(value: Any) -> str:
    """Return arguments as one line; those with spaces are quoted."""
    words = [str(each) for each in value] if isinstance(value, list) else [str(value)]
    return " ".join(f"'{word}'" if " " in word else word for word in words)


def _text(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _process_memory(run: RunSummary) -> Panel:
    reading = "Physical memory in use (resident set), at each export of metrics."
    empty = "The memory of the process was not measured: process.memory is off, or the system has no /proc."
    return _memory(run, "memory", "Memory of the process", metric.PROCESS_MEMORY, reading=reading, empty=empty)


def _device_memory(run: RunSummary) -> Panel:
    reading = (
        "Reserved: held by torch's allocator, of which living tensors fill the allocated part. Peak: the most so far."
    )
    empty = "No memory of a CUDA device was measured: none was used, or process.memory is off."
    return _memory(run, "device-memory", "Memory of the device", metric.DEVICE_MEMORY, reading=reading, empty=empty)


def _memory(run: RunSummary, key: str, title: str, spec: MetricSpec, *, reading: str, empty: str) -> Panel:
    series = []
    for hue, (series_key, stream) in enumerate(run.streams(spec)):
        parts = [
            run.names.name(series_key),
            stream.attributes.get(attr.DEVICE),
            stream.attributes.get(attr.MEMORY_STATE),
        ]
        name = " · ".join(str(part) for part in parts if part) or "resident set"
        series.append(_gibibytes(run.series(series_key, stream, name, hue=hue, sparse=len(stream.times) == 1)))
    if not series:
        return Panel(key=key, title=title, empty=empty, wide=False)
    return Panel(
        key=key,
        title=title,
        reading=reading,
        summary=summary(f"{title}, GiB,", series, percent=False),
        variants=[Variant("", "", lines(series[:MOST_SERIES], unit="GiB"))],
        table=series_table(f"{title}, GiB", series),
        wide=False,
    )


def _gibibytes(series: Series) -> Series:
    return Series(
        series.name,
        series.times,
        series.values / _GIB,
        series.steps,
        group=series.group,
        hue=series.hue,
        sparse=series.sparse,
    )
