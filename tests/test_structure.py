"""What imports what: no circle, nothing upwards, and nothing that ships leans on what does not."""

import ast
import warnings
from collections.abc import Iterator
from pathlib import Path

import networkx as nx
import pytest

from tests.conftest import ON_ALL_NETS

ROOT = Path(__file__).parents[1]
PACKAGE = "onnxslim_learn"

FLOORS = """
    errors readers settings keywords array_types labels output_kinds lower_bounds detection_lists metrics runtime rows
    registry graph coupling quality costs data rewrite repair analysis plans select latency lossless_cuts bases sparse
    workflow bridge train learners report commands demo cli __init__ __main__
""".split()  # noqa: SIM905
"""Rooms of the package from the ground up: what lies in one imports from itself and from those before it."""

MAY_IMPORT = {
    PACKAGE: {PACKAGE},
    "nets": {PACKAGE, "nets"},
    "scripts": {PACKAGE, "nets", "scripts"},
    "benchmarks": {PACKAGE, "nets", "benchmarks"},
    "tests": {PACKAGE, "nets", "scripts", "benchmarks", "tests"},
}
"""Folders of this project -> those that they may import from."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


MODULES = {module_name(path): path for folder in MAY_IMPORT for path in (ROOT / folder).rglob("*.py")}


def imports(source: str) -> Iterator[tuple[str, int]]:
    """Names that a source imports, wherever it does: in functions, and for types alone, too; and the lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            yield from ((f"{node.module}.{alias.name}", node.lineno) for alias in node.names)


def module_of(name: str) -> str:
    """The module of this project that an imported name lies in, or the name itself if none does."""
    parts = name.split(".")
    prefixes = (".".join(parts[:end]) for end in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in MODULES), name)


def edges(folder: str) -> Iterator[tuple[str, str, int]]:
    """Imports in a folder: module, imported module, line."""
    for module, path in MODULES.items():
        if module.partition(".")[0] == folder:
            for name, line in imports(path.read_text(encoding="utf-8")):
                if (target := module_of(name)) != module:
                    yield module, target, line


def floor(module: str) -> int:
    """How far up a module of the package lies."""
    room = module.split(".")[1] if "." in module else "__init__"
    assert room in FLOORS, f"{module}: {room} is on no floor. State in FLOORS which rooms it may import from."
    return FLOORS.index(room)


def test_imports_are_read_wherever_they_stand():
    source = """
import a.b as c
from d import e, f
if TYPE_CHECKING:
    from g.h import I
def function():
    from j import k
    import l
"""
    assert dict(imports(source)) == {"a.b": 2, "d.e": 3, "d.f": 3, "g.h.I": 5, "j.k": 7, "l": 8}
    assert module_of(f"{PACKAGE}.errors.InputError") == f"{PACKAGE}.errors"
    assert module_of("numpy.linalg") == "numpy.linalg"


def test_no_module_imports_itself_by_way_of_others():
    graph = nx.DiGraph((a, b) for a, b, _ in edges(PACKAGE) if b in MODULES)
    assert len(graph) > 100
    assert [sorted(circle) for circle in nx.strongly_connected_components(graph) if len(circle) > 1] == []


def test_no_import_runs_upwards():
    inside = [edge for edge in edges(PACKAGE) if edge[1] in MODULES]
    upwards = [(a, b, line) for a, b, line in inside if floor(a) < floor(b)]
    assert upwards == [], "move what is imported down, or hand it in as an argument"


@pytest.mark.parametrize("folder", MAY_IMPORT)
def test_folders_import_from_none_that_stand_on_them(folder):
    wrong = [
        (a, b, line)
        for a, b, line in edges(folder)
        if (top := b.partition(".")[0]) in MAY_IMPORT and top not in MAY_IMPORT[folder]
    ]
    assert wrong == []


@pytest.mark.parametrize("category", [DeprecationWarning, PendingDeprecationWarning])
def test_warnings_of_what_is_outdated_are_errors_where_this_package_uses_it(category):
    warnings.warn_explicit("outdated", category, "net.py", 1, module="library.net")
    with pytest.raises(category):
        warnings.warn_explicit("outdated", category, "load.py", 1, module=f"{PACKAGE}.graph.load")


def test_laws_on_all_nets_are_there():
    sources = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob("test_*.py"))
    assert [name for name in ON_ALL_NETS if f"def {name}(" not in sources] == []


SAYS_NOTHING = {"found", "made", "own"}
"""Names that tell where a value comes from, not what it is."""


def bound(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that a module binds: variables and parameters; and the lines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno


def test_names_are_read_wherever_they_are_bound():
    source = "def f(made):\n    for own in made:\n        found = [x for x in own]\n    return lambda y: found"
    assert sorted(bound(ast.parse(source))) == [("found", 3), ("made", 1), ("own", 2), ("x", 3), ("y", 4)]


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.partition(".")[0] == PACKAGE))
def test_names_say_what_they_hold(module):
    tree = ast.parse(MODULES[module].read_text(encoding="utf-8"))
    assert [f"{module}:{line}: {name}" for name, line in bound(tree) if name in SAYS_NOTHING] == []
