"""Resolve every identifier of Python files: module names by scope, members by name.

Only the standard library's parser is used. The class of a member is therefore known only after ``self``, after the name
of the class, and in its definition.
"""

# ruff: noqa: D102 - a visitor's methods are named after what they visit

import ast
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

_Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda
_Comprehension = ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp


def path_of(module: str) -> str:
    """Return the path of a module, relative to the repository."""
    path = module.replace(".", "/")
    return f"src/{path}.py" if path.startswith("nissa/") else f"{path}.py"


def module_of(path: str) -> str:
    """Return the dotted name of a Python file."""
    return path.removeprefix("src/").removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@dataclass(eq=False)
class Use:
    """An identifier in a file.

    Args:
        node: Where it is in the tree.
        slot: Attribute of the node that holds it.
        index: Which entry of that attribute, where it is a list.
        name: The identifier.
        target: ``module:name`` where it means a name of a module, ``module`` for a module itself, ``.name`` for a member
            and for a keyword, ``file:scope:name`` for a local variable, ``builtin:name`` for anything else.
        owner: Class of a member, where it is certain.
        keyword: It is the name of a keyword argument.
    """

    node: ast.AST
    slot: str
    name: str
    target: str
    index: int | None = None
    owner: str = ""
    keyword: bool = False

    def put(self, name: str) -> None:
        """Replace the identifier in the tree."""
        if self.index is None:
            setattr(self.node, self.slot, name)
        else:
            getattr(self.node, self.slot)[self.index] = name


@dataclass(eq=False)
class _Scope:
    label: str
    names: set[str]
    parent: "_Scope | None"
    klass: bool = False
    imports: dict[str, str] = field(default_factory=dict)


class Uses(ast.NodeVisitor):
    """All identifiers of a file, resolved; ``found`` has them in the order of the tree.

    Args:
        tree: The file.
        module: Its dotted name.
        package: It is an ``__init__.py``.
    """

    def __init__(self, tree: ast.Module, module: str, *, package: bool = False) -> None:
        self.found: list[Use] = []
        self._module = module
        self._package = package
        self._classes: list[str] = []
        self._count = 0
        self._scope = _Scope("", _bound(tree.body), None, imports=self._imports_of(tree.body))
        self.exports = {f"{module}:{name}": target for name, target in self._scope.imports.items() if ":" in target}
        self.visit(tree)

    def _imports_of(self, body: Iterable[ast.AST]) -> dict[str, str]:
        """Return the targets of the imports of one scope, by local name."""
        found: dict[str, str] = {}
        for each in body:
            if isinstance(each, ast.ImportFrom):
                found |= {alias.asname or alias.name: f"{self._source(each)}:{alias.name}" for alias in each.names}
            elif isinstance(each, ast.Import):
                for alias in each.names:
                    top = alias.name.partition(".")[0]
                    found[alias.asname or top] = alias.name if alias.asname else top
            elif not isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
                found |= self._imports_of(ast.iter_child_nodes(each))
        return found

    def _source(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        base = self._module.split(".")
        base = base[: len(base) - node.level + self._package]
        return ".".join([*base, *([node.module] if node.module else [])])

    def _add(self, node: ast.AST, slot: str, name: str, target: str, **more: object) -> None:
        self.found.append(Use(node, slot, name, target, **more))  # type: ignore[arg-type]

    def _resolve(self, name: str) -> str:
        scope: _Scope = self._scope
        first = True
        while scope.parent is not None:
            if name in scope.names and (first or not scope.klass):
                member = f".{name}" if scope.klass else f"{self._module}:{scope.label}:{name}"
                return scope.imports.get(name, member)
            first = False
            scope = scope.parent
        if name in scope.names:
            return scope.imports.get(name, f"{self._module}:{name}")
        return f"builtin:{name}"

    def _enter(
        self, names: set[str], body: Iterable[ast.AST | None], *, klass: bool = False, outer: set[str] | None = None
    ) -> None:
        self._count += 1
        statements = [each for each in body if each is not None]
        label = f"{self._scope.label}/{self._count}"
        self._scope = _Scope(label, names - (outer or set()), self._scope, klass, self._imports_of(statements))
        for each in statements:
            self.visit(each)
        assert self._scope.parent is not None  # noqa: S101 - it was made above
        self._scope = self._scope.parent

    def visit_Name(self, node: ast.Name) -> None:
        target = self._resolve(node.id)
        owner = self._classes[-1] if target.startswith(".") and self._classes else ""
        self._add(node, "id", node.id, target, owner=owner)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        self.visit(node.value)
        target, owner = f".{node.attr}", ""
        if isinstance(node.value, ast.Name):
            base = self._resolve(node.value.id)
            if node.value.id in {"self", "cls"} and self._classes:
                owner = self._classes[-1]
            elif ":" not in base:
                target = f"{base}:{node.attr}"
            elif base.count(":") == 1 and not base.startswith((f"{self._module}:", "builtin:")):
                # Names with a capital are imported classes; others may be modules.
                owner = base if base.partition(":")[2][:1].isupper() else ""
                target = target if owner else f"{base.replace(':', '.')}:{node.attr}"
        self._add(node, "attr", node.attr, target, owner=owner)

    def visit_Call(self, node: ast.Call) -> None:
        self.visit(node.func)
        for each in node.args:
            self.visit(each)
        called = self._resolve(node.func.id) if isinstance(node.func, ast.Name) else ""
        for keyword in node.keywords:
            if keyword.arg is not None:
                self._add(keyword, "arg", keyword.arg, f".{keyword.arg}", owner=called, keyword=True)
            self.visit(keyword.value)

    def visit_arg(self, node: ast.arg) -> None:
        self._add(node, "arg", node.arg, self._resolve(node.arg))

    def visit_Import(self, node: ast.Import) -> None:
        for each in node.names:
            if each.asname:
                self._add(each, "asname", each.asname, f"{self._module}:as:{each.asname}")

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for each in node.names:
            self._add(each, "name", each.name, f"{self._source(node)}:{each.name}")
            if each.asname:
                self._add(each, "asname", each.asname, f"{self._module}:as:{each.asname}")

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for each in [*node.decorator_list, *node.bases, *(keyword.value for keyword in node.keywords)]:
            self.visit(each)
        self._defined(node)
        self._classes.append(f"{self._module}:{node.name}")
        self._enter(_bound(node.body), node.body, klass=True)
        self._classes.pop()

    def _defined(self, node: ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        target = self._resolve(node.name)
        self._add(
            node, "name", node.name, target, owner=self._classes[-1] if target.startswith(".") and self._classes else ""
        )

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node, [*node.decorator_list], node.body)

    def visit_AsyncFunctionDef(self, node: ast.AsyncFunctionDef) -> None:
        self._function(node, [*node.decorator_list], node.body)

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node, [], [node.body])

    def _function(self, node: _Function, before: list[ast.expr], body: Iterable[ast.AST]) -> None:
        every = arguments(node)
        for each in [*before, *node.args.defaults, *node.args.kw_defaults]:
            if each is not None:
                self.visit(each)
        if not isinstance(node, ast.Lambda):
            self._defined(node)
            for annotation in [*(each.annotation for each in every), node.returns]:
                if annotation is not None:
                    self.visit(annotation)
        kept = [_without_annotation(each) for each in every]
        inner = list(body)
        outer = {
            name
            for each in inner
            for sub in ast.walk(each)
            if isinstance(sub, ast.Global | ast.Nonlocal)
            for name in sub.names
        }
        self._enter({each.arg for each in every} | _bound(inner), [*every, *inner], outer=outer)
        for argument, annotation in zip(every, kept, strict=True):
            argument.annotation = annotation

    def visit_Global(self, node: ast.Global) -> None:
        self._declared(node)

    def visit_Nonlocal(self, node: ast.Nonlocal) -> None:
        self._declared(node)

    def _declared(self, node: ast.Global | ast.Nonlocal) -> None:
        for index, name in enumerate(node.names):
            self._add(node, "names", name, self._resolve(name), index=index)

    def visit_ExceptHandler(self, node: ast.ExceptHandler) -> None:
        if node.type is not None:
            self.visit(node.type)
        if node.name:
            self._add(node, "name", node.name, self._resolve(node.name))
        for each in node.body:
            self.visit(each)

    def visit_MatchAs(self, node: ast.MatchAs) -> None:
        self.generic_visit(node)
        if node.name:
            self._add(node, "name", node.name, self._resolve(node.name))

    def _comprehension(self, node: _Comprehension) -> None:
        first = node.generators[0]
        self.visit(first.iter)
        names = {each.id for part in node.generators for each in ast.walk(part.target) if isinstance(each, ast.Name)}
        results = [node.key, node.value] if isinstance(node, ast.DictComp) else [node.elt]
        body: list[ast.AST] = [first.target, *first.ifs]
        for part in node.generators[1:]:
            body += [part.iter, part.target, *part.ifs]
        self._enter(names, [*body, *results])

    visit_ListComp = visit_SetComp = visit_DictComp = visit_GeneratorExp = _comprehension  # noqa: N815


def _without_annotation(argument: ast.arg) -> ast.expr | None:
    kept, argument.annotation = argument.annotation, None
    return kept


def arguments(node: _Function) -> list[ast.arg]:
    """Return all parameters of a function."""
    signature = node.args
    rest = [each for each in (signature.vararg, signature.kwarg) if each is not None]
    return [*signature.posonlyargs, *signature.args, *signature.kwonlyargs, *rest]


def _bound(body: Iterable[ast.AST]) -> set[str]:
    """Return the names that statements bind in their own scope."""
    found: set[str] = set()
    for each in body:
        if isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(each.name)
            continue
        if isinstance(each, ast.Lambda):
            continue
        if isinstance(each, ast.Import | ast.ImportFrom):
            found |= {alias.asname or alias.name.partition(".")[0] for alias in each.names}
        elif isinstance(each, ast.Name) and not isinstance(each.ctx, ast.Load):
            found.add(each.id)
        elif isinstance(each, ast.ExceptHandler | ast.MatchAs) and each.name:
            found.add(each.name)
        if isinstance(each, _Comprehension):  # of these only := binds outside
            found |= {sub.target.id for sub in ast.walk(each) if isinstance(sub, ast.NamedExpr)}
        else:
            found |= _bound(ast.iter_child_nodes(each))
    return found


class _Expanded(ast.NodeTransformer):
    """Replaces the quoted types of annotations and of ``cast`` by their parsed expressions, each in its own tuple."""

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if not isinstance(node.value, str) or node.lineno != node.end_lineno:
            return node
        try:
            inner = ast.parse(node.value, mode="eval").body
        except SyntaxError:
            return node
        for each in ast.walk(inner):
            if isinstance(each, ast.expr | ast.keyword | ast.arg):
                each.lineno = each.end_lineno = node.lineno
                each.col_offset += node.col_offset + 1
                each.end_col_offset = (each.end_col_offset or 0) + node.col_offset + 1
        return ast.copy_location(ast.Tuple([inner], ast.Load()), node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        named = node.value.id if isinstance(node.value, ast.Name) else getattr(node.value, "attr", "")
        if named == "Annotated" and isinstance(node.slice, ast.Tuple):
            node.slice.elts[0] = self.visit(node.slice.elts[0])
        elif named != "Literal":
            self.generic_visit(node)
        return node


def parsed(source: str) -> ast.Module:
    """Return the tree of a file, with quoted types as trees."""
    tree, expand = ast.parse(source), _Expanded()
    for each in list(ast.walk(tree)):
        for name in ("annotation", "returns"):
            if isinstance(value := getattr(each, name, None), ast.expr):
                setattr(each, name, expand.visit(value))
        if (
            isinstance(each, ast.Call)
            and getattr(each.func, "id", getattr(each.func, "attr", "")) == "cast"
            and each.args
        ):
            each.args[0] = expand.visit(each.args[0])
    return tree


def uses(texts: Mapping[str, str]) -> dict[str, tuple[ast.Module, list[Use]]]:
    """Return the tree and all identifiers of each file; names re-exported by a package resolve to the original."""
    found: dict[str, tuple[ast.Module, list[Use]]] = {}
    exports: dict[str, str] = {}
    for path, text in texts.items():
        tree = parsed(text)
        visitor = Uses(tree, module_of(path), package=path.endswith("__init__.py"))
        found[path] = (tree, visitor.found)
        exports |= visitor.exports
    for _, each in found.values():
        for use in each:
            for _ in range(5):
                use.target = exports.get(use.target, use.target)
            use.owner = exports.get(use.owner, use.owner)
    return found
