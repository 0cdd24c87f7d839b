"""Command ``nissa profiles``: settings and cost of each profile, and the source of each effective setting."""

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from nissa.cli.output import Json, console, print_json
from nissa.errors import ConfigurationError, UnknownNameError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from nissa.config.profile_costs import ProfileCost, ShortStepCost
    from nissa.config.provenance import Effective

EXAMPLES: Final = (
    ("nissa profiles", "compare the profiles and their cost"),
    ("nissa profiles --profile research --all", "list every setting of one profile"),
    ("nissa profiles --effective", "show the settings of a run started here, with their sources"),
    ("nissa profiles --effective --config my.yaml --set gradients.every_n_steps=5", "the same for this file"),
)
_NOT_MEASURED: Final = "What profiles cost: not measured; no benchmark results are committed."


def profiles(
    *,
    profile: Annotated[
        str | None, typer.Option(metavar="NAME", help="Show only this profile; with --effective, start from it.")
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Also show the settings in which profiles agree.")] = False,
    effective: Annotated[
        bool, typer.Option("--effective", help="Show the settings of a run, each value with its source.")
    ] = False,
    config: Annotated[
        str | None, typer.Option(metavar="FILE", help="With --effective: a YAML file; default from NISSA_CONFIG.")
    ] = None,
    assign: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="SETTING=VALUE", help="With --effective: an argument of nissa.start; repeatable."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Show what each profile measures, and what it costs.

    A run's settings come from a profile, a YAML file, NISSA_* variables and the arguments of nissa.start; later ones
    override earlier ones. --effective shows the result.

    Costs were measured by the project's benchmarks on the machine named in the table; yours will differ.
    """
    if effective:
        _show_effective(profile, config, assign or [], json=json)
    elif config is not None or assign:
        raise ConfigurationError("--config and --set require --effective.")
    else:
        _show_profiles(profile, every=every, json=json)


def _show_effective(profile: str | None, config: str | None, assignments: "Sequence[str]", *, json: bool) -> None:
    from nissa.config.provenance import effective  # noqa: PLC0415
    from nissa.config.schema_docs import variable  # noqa: PLC0415 - help stays quick without it

    found = effective(profile, config, dict(map(_assignment, assignments)))
    if json:
        plain = [{"setting": e.path, "value": e.value, "source": e.source, "variable": variable(e.path)} for e in found]
        print_json({"settings": plain})
    else:
        console().print(_effective_table(found))


def _assignment(text: str) -> tuple[str, Any]:
    import yaml  # noqa: PLC0415 - help stays quick without it

    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ConfigurationError(
            f"--set {text!r} is not an assignment; write SETTING=VALUE, as in gradients.every_n_steps=5."
        )
    try:
        return name.strip(), yaml.safe_load(value)
    except yaml.YAMLError:
        return name.strip(), value


def _effective_table(found: "Sequence[Effective]") -> "Table":
    from rich.markup import escape  # noqa: PLC0415 - help stays quick without it
    from rich.table import Column, Table  # noqa: PLC0415

    from nissa.config.provenance import DEFAULT  # noqa: PLC0415

    table = Table(Column("setting", no_wrap=True), "value", "from", title="What a run would use; defaults are dim")
    for each in found:
        style = "dim" if each.source == DEFAULT else ""
        table.add_row(each.path, escape(_shown(each.value)), escape(each.source), style=style)
    return table


def _show_profiles(profile: str | None, *, every: bool, json: bool) -> None:
    from nissa.config import PROFILES, TelemetryConfig  # noqa: PLC0415 - help stays quick without it
    from nissa.config.profile_costs import measured, measured_short  # noqa: PLC0415

    if profile is not None and profile not in PROFILES:
        raise UnknownNameError("profile", profile, PROFILES)
    configs = {name: TelemetryConfig.from_profile(name) for name in PROFILES if profile in (None, name)}
    costs = [each for each in measured() if each.profile in configs]
    short = [each for each in measured_short() if each.profile in configs]
    if json:
        plain = {name: each.model_dump(mode="json") for name, each in configs.items()}
        counts = {name: each.feature_count for name, each in configs.items()}
        print_json(
            {"profiles": plain, "feature_counts": counts, "overhead": _plain(costs), "short_steps": _plain(short)}
        )
        return
    out = console()
    out.print(_profiles_table(configs, every=every))
    out.print(_costs_table(costs) if costs else _NOT_MEASURED)
    if short:
        out.print(_short_table(short))


def _profiles_table(configs: "dict[str, Any]", *, every: bool) -> "Table":
    from rich.markup import escape  # noqa: PLC0415 - help stays quick without it
    from rich.table import Column, Table  # noqa: PLC0415

    from nissa.config import TelemetryConfig, describe  # noqa: PLC0415
    from nissa.config.provenance import at  # noqa: PLC0415

    title = "What profiles measure" if every else "Where profiles differ from the defaults"
    table = Table(Column("setting", no_wrap=True), *configs, title=f"{title}; defaults are dim")
    for setting in describe(TelemetryConfig):
        values = [at(config, setting.path) for config in configs.values()]
        if setting.path != "profile_name" and (every or any(value != setting.default for value in values)):
            texts = [escape(_shown(value)) for value in values]
            marked = [
                f"[dim]{text}[/]" if value == setting.default else text
                for text, value in zip(texts, values, strict=True)
            ]
            table.add_row(setting.path, *marked)
    table.add_row("numbers per snapshot", *(str(config.feature_count) for config in configs.values()))
    return table


def _costs_table(costs: "Sequence[ProfileCost]") -> "Table":
    from rich.table import Table  # noqa: PLC0415 - help stays quick without it

    title = "What profiles cost: longer steps, with 95 % confidence intervals"
    table = Table("profile", "model", "by time", "in Nissa's own code", "goal", "machine", "measured", title=title)
    for each in costs:
        by_time = f"{each.ratio:+.2%} ({each.low:+.2%} to {each.high:+.2%})"
        own = "" if each.own is None else f"{each.own:.2%} ({each.own_low:.2%} to {each.own_high:.2%})"
        goal = "" if each.goal is None else f"< {each.goal:.1%}"
        table.add_row(each.profile, each.model, by_time, own, goal, each.machine, f"{each.date}, {each.commit}")
    return table


def _short_table(costs: "Sequence[ShortStepCost]") -> "Table":
    from rich.table import Table  # noqa: PLC0415 - help stays quick without it

    title = "What profiles cost on short steps: added processor time, with 95 % confidence intervals"
    table = Table("profile", "model", "step without Nissa", "added", "goal", "machine", "measured", title=title)
    for each in costs:
        added = f"{each.added:.0f} µs ({each.low:.0f} to {each.high:.0f})"
        goal = "" if each.goal is None else f"{each.goal:.0f} µs"
        measured = f"{each.date}, {each.commit}"
        table.add_row(each.profile, each.model, f"{each.bare:.0f} µs", added, goal, each.machine, measured)
    return table


def _plain(costs: "Sequence[ProfileCost | ShortStepCost]") -> list[dict[str, Any]]:
    from dataclasses import asdict  # noqa: PLC0415 - help stays quick without it

    return [asdict(each) for each in costs]


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in value)
    if isinstance(value, bool):
        return "on" if value else "off"
    return "-" if value is None else str(value)
