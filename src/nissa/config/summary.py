"""Readable summary of a configuration."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nissa.config.models import TelemetryConfig
    from nissa.config.sections import ConsoleConfig, DiagnosticsConfig, GradientConfig
    from nissa.config.sharpness import SharpnessConfig


def summarise(config: "TelemetryConfig") -> str:
    """Return the summary: one line per topic."""
    limits = config.limits
    lines = {
        "profile": config.profile_name,
        "history": f"{config.history_length} epochs",
        "gradients": _gradients(config.gradients),
        "overhead": "no bound"
        if config.overhead_budget is None
        else f"at most {config.overhead_budget:.3g} of step time",
        "classes": f"up to {config.per_class.max_classes}" if config.per_class.enabled else "off",
        "spans": _spans(config),
        "findings": _findings(config.diagnostics),
        "sharpness": _sharpness(config.sharpness),
        "features": f"{config.feature_count} numbers an epoch",
        "limits": f"{limits.queue_size:,} items a queue, {limits.gauge_points_per_export:,} gauge points an export, "
        f"{limits.exit_timeout_seconds:g} s to exit",
        "files": f"{config.files.directory}, every {config.files.export_interval_seconds:g} s without an exporter",
        "console": _console(config.console),
        "strict": {None: "under pytest", True: "yes", False: "no"}[config.strict],
    }
    return "\n".join(f"{name:<10} {text}" for name, text in lines.items())


def _gradients(gradients: "GradientConfig") -> str:
    if not gradients.enabled:
        return "off"
    often = "every step" if gradients.every_n_steps == 1 else f"every {gradients.every_n_steps} steps"
    layers = "all layers" if gradients.layers == "all" else f"layers {', '.join(gradients.layers)}"
    ranks = ", ".join(f"{percentile:g}" for percentile in gradients.percentiles)
    percentiles = f"percentiles {ranks}" if ranks else "no percentiles"
    return ", ".join([often, layers, percentiles, *_weights(gradients), _streams(gradients)])


def _weights(gradients: "GradientConfig") -> list[str]:
    switches = {"weight norms": gradients.weight_norms, "update ratios": gradients.update_ratios}
    return [name for name, on in switches.items() if on]


def _streams(gradients: "GradientConfig") -> str:
    text = f"streams for up to {gradients.max_parameters:,} {gradients.group_by}s"
    text += "" if gradients.top_k is None else f", of which the {gradients.top_k:,} largest a step"
    return text + {"auto": "", "first": ", from rank 0", "all": ", from every rank"}[gradients.ranks]


def _spans(config: "TelemetryConfig") -> str:
    names = ["seeds, epochs, validation"]
    names += ["sampled steps"] if config.spans.steps and config.gradients.enabled else []
    names += ["starts of long spans"] if config.spans.started else []
    return ", ".join(names)


def _findings(diagnostics: "DiagnosticsConfig") -> str:
    return (
        f"plateau after {diagnostics.plateau_epochs} epochs within {diagnostics.plateau_delta:g}, "
        f"overfitting beyond {diagnostics.overfitting_gap:g}, "
        f"class imbalance beyond {diagnostics.class_imbalance_spread:.0%}"
    )


def _sharpness(sharpness: "SharpnessConfig") -> str:
    if not sharpness.enabled:
        return "off"
    often = "every epoch" if sharpness.every_n_epochs == 1 else f"every {sharpness.every_n_epochs} epochs"
    compiled = ", compiled" if sharpness.compile else ""
    return f"{', '.join(sharpness.methods)}, {often}, within {sharpness.budget_milliseconds:g} ms{compiled}"


def _console(console: "ConsoleConfig") -> str:
    colour = {None: "colour on a terminal", True: "in colour", False: "without colour"}[console.color]
    return f"one line per epoch, {colour}" if console.enabled else "off"
