"""Call after the import of a module."""

import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from types import ModuleType


class ImportHook:
    """Finder that calls a function once, after a module has been imported; at once if that has happened already.

    Args:
        name: Name of a module that is not part of a package.
        call: The function.
    """

    def __init__(self, name: str, call: Callable[[], None]) -> None:
        self._name = name
        self._call = call

    def install(self) -> None:
        """Wait for the import."""
        module = sys.modules.get(self._name)
        if module is not None and not getattr(getattr(module, "__spec__", None), "_initializing", False):
            self._call()
        else:
            sys.meta_path.insert(0, self)

    def remove(self) -> None:
        """Stop waiting."""
        if self in sys.meta_path:
            sys.meta_path.remove(self)

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return the spec that the other finders find, with a loader that calls the function afterwards."""
        del path, target
        if name != self._name:
            return None
        self.remove()
        spec = find_spec(name)
        load = None if spec is None else getattr(spec.loader, "exec_module", None)
        if spec is None or load is None:
            return None
        loader = spec.loader

        def exec_module(module: ModuleType) -> None:
            vars(loader).pop("exec_module", None)  # the loader of the module is then what it is without us
            load(module)
            self._call()

        loader.exec_module = exec_module  # type: ignore[union-attr, method-assign]
        return spec
