"""Nothing but the operator tables decides by the name of an operator, and no list of such names lies elsewhere."""

import ast
import itertools
from pathlib import Path

import onnx
import pytest

from onnxslim_learn.coupling.operators import table

PACKAGE = Path(__file__).parents[1] / "onnxslim_learn"

TABLES = ("coupling/operators/", "coupling/roles.py", "bridge/ops/", "graph/shape_arithmetic.py", "graph/schemas.py")
"""The table of what operators are and its reader, that of torch functions, that of sizes, and the standard's own."""

MODULES = [path for path in sorted(PACKAGE.rglob("*.py")) if not str(path.relative_to(PACKAGE)).startswith(TABLES)]

NAMES = {schema.name for schema in onnx.defs.get_all_schemas()} | set(table.CONTRIB)

TESTS = {"get", "pop", "setdefault", "startswith", "endswith", "removeprefix", "match", "fullmatch", "search", "index"}
"""Methods that look up or compare what they are given."""


def decides(tree):
    """Yield the lines at which the name of a node's operator is compared or looked up."""
    for node in ast.walk(tree):
        asked = []
        if isinstance(node, ast.Compare):
            asked = [node.left, *node.comparators]
        elif isinstance(node, ast.Subscript) and isinstance(node.ctx, ast.Load):
            asked = [node.slice]
        elif isinstance(node, ast.Match):
            asked = [node.subject]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            asked = [node.func.value, *(node.args if node.func.attr in TESTS else ())]
        parts = itertools.chain.from_iterable(one.elts if isinstance(one, ast.Tuple) else [one] for one in asked)
        if any(isinstance(part, ast.Attribute) and part.attr == "op_type" for part in parts):
            yield node.lineno


def lists(tree):
    """Yield the lines of sets, lists and keys that are names of operators, and of comparisons with one."""
    for node in ast.walk(tree):
        words = []
        if isinstance(node, ast.Set | ast.List | ast.Tuple):
            words = [part.value for part in node.elts if isinstance(part, ast.Constant)]
            words = words if len(words) == len(node.elts) and (len(words) > 1 or isinstance(node, ast.Set)) else []
        elif isinstance(node, ast.Dict):
            words = [part.value for part in node.keys if isinstance(part, ast.Constant)]
        elif isinstance(node, ast.Compare):
            words = [part.value for part in (node.left, *node.comparators) if isinstance(part, ast.Constant)]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and len(node.value.split()) > 1:
            words = node.value.split()
        if words and all(isinstance(word, str) and word in NAMES for word in words):
            yield node.lineno


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_the_tables_name_operators(path):
    tree = ast.parse(path.read_text())
    assert not [*decides(tree)], "asks for the name of an operator; ask onnxslim_learn.coupling.roles what a node is"
    assert not [*lists(tree)], "lists operators; state what they have in common in their rows of the operator table"


@pytest.mark.parametrize(
    "text",
    [
        "node.op_type in MOVES",
        "node.op_type == 'Conv'",
        "TABLE[node.domain, node.op_type]",
        "TABLE.get(node.op_type)",
        "node.op_type.startswith('Random')",
        "{'Conv', 'Gemm'}",
        "{'Relu': 0}",
        "('Add', 'Sub')",
        "frozenset(['Cast', 'Reshape'])",
        "'Conv FusedConv'.split()",
        "kind == 'MatMul'",
    ],
)
def test_a_decision_by_name_is_seen(text):
    tree = ast.parse(text)
    assert [*decides(tree), *lists(tree)]


@pytest.mark.parametrize(
    "text", ["f'node {node.name} ({node.op_type})'", "row = {'op_type': node.op_type}", "Step(node.op_type)", "'Conv'"]
)
def test_what_is_only_told_is_let_through(text):
    tree = ast.parse(text)
    assert not [*decides(tree), *lists(tree)]
