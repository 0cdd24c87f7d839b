"""Values that a training loop logs: own scalars, processed items, and the results of a clipping of its own."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from nissa.distributed.dtensors import whole
from nissa.gradients.logged_values import items_now, value_now

if TYPE_CHECKING:
    from collections.abc import Callable

    from nissa.run.runtime import Runtime

MOST_NAME: Final = 200
"""Maximum length of a name."""


class ValueLog:
    """Logged values of one environment: checked at the call, and kept until the next step carries them.

    An invalid value is refused and costs no other value of the call.

    Args:
        runtime: Components of the run.
        env_id: Id of the environment.
    """

    def __init__(self, runtime: "Runtime", env_id: str | None) -> None:
        self._runtime = runtime
        self._env_id = env_id
        self._clock = runtime.clock(env_id)

    def scalars(self, values: object, named: Mapping[str, Any]) -> None:
        """Log the values of ``log()``."""
        self._each("log()", values, named, self._scalar)

    def items(self, values: object, named: Mapping[str, Any]) -> None:
        """Count the items of ``log_items()``."""
        self._each("log_items()", values, named, self._items)

    def clip(self, norm: Any, max_norm: Any, model: str | None) -> None:
        """Log the values of ``log_clip()``."""
        with self._runtime.stopwatch.own, self._runtime.error_boundary.guard("log_clip"):
            try:
                self._clock.log_clipping(_norm(whole(norm)), _limit(max_norm), model)
            except (TypeError, ValueError, OverflowError) as error:
                self._runtime.refuse("log_clip()", str(error).removeprefix("log_clip() "))

    def _each(self, call: str, values: object, named: Mapping[str, Any], store: "Callable[[str, Any], None]") -> None:
        with self._runtime.stopwatch.own, self._runtime.error_boundary.guard(call.removesuffix("()")):
            refused = []
            if values is not None and not isinstance(values, Mapping):
                refused.append(f"Pass names and numbers, not {type(values).__name__}.")
                values = None
            for name, value in {**(values or {}), **named}.items():
                try:
                    store(_checked_name(name), value)
                except (TypeError, ValueError, OverflowError) as error:
                    refused.append(f"{_shown(name)} {str(error).removeprefix(f'{call} ')}")
            if not self._runtime.watches.is_watching(self._env_id):
                self._runtime.export_logged(self._env_id)
            for reason in refused:  # last: it raises in a strict run
                self._runtime.refuse(call, reason)

    def _scalar(self, name: str, value: Any) -> None:
        now = value_now(value, "log()")
        if self._runtime.scalar_names.own(name) is None:
            self._runtime.hub.count_rejection("scalar_limit")
        else:
            self._clock.logged.log(name, now, self._runtime.now())

    def _items(self, kind: str, amount: Any) -> None:
        now = items_now(amount, "log_items()")
        self._clock.logged.count(self._runtime.item_kinds.label(kind), now, self._runtime.now())


def _norm(norm: Any) -> Any:
    now = value_now(norm, "log_clip()")
    if isinstance(now, float) and now < 0:  # NaN is the norm of gradients that are not finite
        raise ValueError(f"log_clip() takes a norm of at least 0, not {now:g}.")
    return now


def _limit(max_norm: Any) -> float:
    limit = value_now(max_norm, "log_clip()")
    if not isinstance(limit, float):
        raise TypeError("log_clip() takes max_norm as a number, not as a tensor on a device.")
    if not limit >= 0:
        raise ValueError(f"log_clip() takes a max_norm of at least 0, not {limit:g}.")
    return limit


def _checked_name(name: object) -> str:
    if not isinstance(name, str):
        raise TypeError(f"is no name; use text, not {type(name).__name__}.")
    if not name.strip() or len(name) > MOST_NAME:
        raise ValueError(f"is no name; use 1 to {MOST_NAME} characters.")
    return name


def _shown(name: object) -> str:
    return repr(name[:40]) if isinstance(name, str) else f"A {type(name).__name__}"
