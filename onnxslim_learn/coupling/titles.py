"""What a group is in its network, and where: in the words of the module that was exported.

A group has a stable name, its first parameter axis. A title tells people: "layer 3, attention: 12 heads of 64". Its
place comes from module paths, which exporters leave in node metadata, in node names or in names of weights; its role
from what the operators around it do with its units.
"""

from __future__ import annotations

import ast
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.relations import OUTPUT

if TYPE_CHECKING:
    import onnx_ir as ir

    from onnxslim_learn.array_types import Labels
    from onnxslim_learn.coupling.groups import Group
    from onnxslim_learn.coupling.relations import Value
    from onnxslim_learn.coupling.residual import Block
    from onnxslim_learn.coupling.solver import Coupling

Path = tuple[str, ...]

ROLES = {
    "heads": "attention heads",
    "experts": "experts of a mixture, of which a router chooses some for every token",
    "queries-keys": "what every head compares queries and keys by",
    "values": "what every head puts out",
    "hidden": "hidden units between two layers",
    "channels": "channels between convolutions",
    "residual": "channels of a residual stream, which many layers read and add to",
    "recurrent": "units of a recurrent cell",
    "convolution-groups": "groups of a convolution",
    "blocks": "residual blocks as a whole, with --drop-blocks or --only blocks",
    "symbols": "symbols of the input (bytes, tokens, categories), which stay unless --only names them",
    "inputs": "what the model takes in",
    "outputs": "what the model puts out",
    "other": "anything else",
}
"""Role -> what it means; options choose groups by it."""

TEXTS = {
    "experts": "{n} experts",
    "queries-keys": "{n} entries of queries and keys",
    "values": "{n} entries of values",
    "hidden": "{n} hidden units",
    "channels": "{n} channels",
    "residual": "{n} channels of the residual stream",
    "recurrent": "{n} recurrent units",
    "convolution-groups": "{n} groups of channels",
    "symbols": "{n} symbols of the input",
    "inputs": "{n} inputs",
    "outputs": "{n} outputs",
    "other": "{n} units",
}

# Words of module paths -> what people say; a path's other words stand as they are.
CONTAINERS = {
    "block": "block",
    "layers": "layer",
    "layer": "layer",
    "h": "layer",
    "blocks": "block",
    "stages": "stage",
    "resblocks": "block",
}
PARTS = {
    **dict.fromkeys(("attn", "self_attn", "attention", "self_attention", "self", "mha", "attention.self"), "attention"),
    **dict.fromkeys(("mlp", "ffn", "feed_forward", "feedforward", "intermediate"), "MLP"),
    **dict.fromkeys(("moe", "block_sparse_moe", "sparse_moe", "mixture"), "experts"),
    **dict.fromkeys(("cross_attn", "encoder_attn", "crossattention"), "cross-attention"),
}
SIDES = ("encoder", "decoder")
WHOLE = ("model", "module", "m", "net", "network", "backbone", "base_model")  # of nets, not of their parts
STAGE = re.compile(r"(layer|stage|block)s?_?(\d+)")
SCOPES = "pkg.torch.onnx.name_scopes"


@dataclass(frozen=True)
class Title:
    """What a group is called beside its stable name.

    Attributes:
        role: A key of :data:`ROLES`.
        path: The module it belongs to, dotted as exporters write it; empty where the file says nothing.
        text: Place and role in words.
        names: What it is called itself: name, role, text and path.
        modules: Paths of the layers that write or read its units.
        contents: The parameter axes, nodes, tensors and modules that carry its units, rows and cells alike.
    """

    role: str
    path: str
    text: str
    names: tuple[str, ...]
    modules: tuple[str, ...]
    contents: tuple[str, ...]

    def contains(self, pattern: re.Pattern[str]) -> bool:
        """Whether a pattern finds the group or anything in it."""
        return any(pattern.search(name) for name in (*self.names, *self.contents))

    def lies_in(self, pattern: re.Pattern[str]) -> bool:
        """Whether a pattern finds the group, or every module that writes or reads its units."""
        return any(map(pattern.search, self.names)) or bool(self.modules and all(map(pattern.search, self.modules)))


def titles(coupling: Coupling, groups: Sequence[Group]) -> dict[str, Title]:
    """The title of every group, by its name."""
    carried = _Carried(coupling, groups)
    return {group.name: carried.title(number, group) for number, group in enumerate(groups)}


def block_title(coupling: Coupling, block: Block) -> Title:
    """The title of a residual block: its place, and what it does."""
    nodes = [coupling.nodes[index] for index in block.nodes]
    read = {node: [str(v.name) for v in node.inputs if v is not None and v.is_initializer()] for node in nodes}
    paths = [module_path(node, read[node]) for node in nodes]
    path = shared_path(paths)
    convolves = any(roles.convolution(node) is not None for node in nodes)
    kind = "attention" if block.attends else "convolution" if convolves else "MLP"
    said = place(path or common_path(paths)).removesuffix(kind).removesuffix(", ")
    what = f"{kind} block"
    text = f"{said}: {what}" if said else f"{coupling.nodes[block.sum].name}: {what}"
    names = tuple(filter(None, (block.name, "blocks", text, ".".join(path))))
    modules = tuple(sorted({".".join(one) for one in paths if one}))
    weights = {name for names_read in read.values() for name in names_read}
    return Title("blocks", ".".join(path), text, names, modules, (*sorted(weights), *(str(n.name) for n in nodes)))


def module_path(node: ir.Node, initializers: Iterable[str] = ()) -> Path:
    """The module a node was exported from, outermost first; empty where nothing tells."""
    scopes = node.metadata_props.get(SCOPES)
    if scopes:
        listed = ast.literal_eval(scopes) if scopes.startswith("[") else []
        return tuple(str(listed[-2]).split(".")) if len(listed) > 1 and listed[-2] else ()
    name = str(node.name or "")
    if name.count("/") > 1:
        return _unrepeated(name.strip("/").split("/")[:-1])
    weights = [w for w in sorted(initializers) if "." in w and "::" not in w]
    return tuple(weights[0].rsplit(".", 1)[0].split(".")) if weights else ()


def _unrepeated(parts: Sequence[str]) -> Path:
    """A path of the older exporter, which writes ``layer1/layer1.0/conv1`` for ``layer1.0.conv1``."""
    words: list[str] = []
    for part in parts:
        inner = part.split(".")
        again = max((k for k in range(1, len(inner)) if words[-k:] == inner[:k]), default=0)
        words += inner[again:]
    return tuple(words)


def shared_path(paths: Sequence[Path]) -> Path:
    """The innermost module that all of some paths lie in, else the one that most of them lie in."""
    known = [path for path in paths if path]
    if len(set(known)) == 1:
        return known[0]
    for needed in (len(paths), len(paths) // 2 + 1):
        prefixes = Counter(path[:length] for path in known for length in range(1, len(path) + 1))
        around = [prefix for prefix, times in prefixes.items() if times >= needed and _tells(prefix)]
        if around:
            longest = max(around, key=len)
            return longest[:-1] if longest[-1] in CONTAINERS else longest
    return ()


def common_path(paths: Iterable[Path]) -> Path:
    """The innermost module that all of some paths lie in, whose name may say little; empty for a whole net."""
    known = [path for path in paths if path]
    alike = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*known, strict=False))
    around = tuple(tokens[0] for tokens in alike)
    return () if all(token in WHOLE for token in around) else around


def _tells(path: Path) -> bool:
    """Whether a path says more than what all modules of a net lie in."""
    return any(token.isdecimal() or STAGE.fullmatch(token) or token in SIDES for token in path)


def place(path: Path) -> str:
    """A module path in words: ``encoder.layer.3.attention.self`` is *encoder layer 3, attention*."""
    said: list[str] = []
    side, word, numbered = "", "", False
    for before, token in zip(("", "", *path), path, strict=False):
        stage = STAGE.fullmatch(token)
        if token.isdecimal():
            said += [before] if before and not said and before not in (*SIDES, *WHOLE) else []
            said.append(f"{CONTAINERS.get(word, word) or 'block'} {token}")
            word, numbered = "", True
        elif stage:
            said.append(f"{'stage' if stage[1] == 'layer' else stage[1]} {stage[2]}")
            word, numbered = "", True
        else:
            side = token if token in SIDES and not numbered else side
            rest = [] if not word or word in SIDES or not numbered else [PARTS.get(word, word)]
            said += [w for w in rest if w not in said]
            word = token
    last = PARTS.get(word, word)
    said += [last] if last and (numbered or not said) and last not in said else []
    text = ", ".join(said)
    return f"{side} {text}" if side and text != side and numbered else text


def _is_identity(table: ir.Value | None) -> bool:
    """Whether a parameter is an identity matrix: its rows are one-hot vectors."""
    tensor = None if table is None else table.const_value
    if tensor is None or len(tensor.shape) != 2 or len(set(tensor.shape)) > 1:
        return False
    numbers = np.asarray(tensor.numpy())
    return bool((np.diag(numbers) == 1).all() and np.count_nonzero(numbers) == len(numbers))


class _Carried:
    """Which groups every value carries, and what nodes do with them."""

    def __init__(self, coupling: Coupling, groups: Sequence[Group]) -> None:
        self.coupling, self.graph, self.groups = coupling, coupling.graph, groups
        of_column = np.full(coupling.columns, -1)
        for number, group in enumerate(groups):
            of_column[group.units] = number
        self.of_class = of_column[coupling.column]
        self.rows_of_class = coupling.membership.tocsr()
        self.count = len(groups)
        self.by_value = {name: self._numbers(value) for name, value in coupling.values.items()}
        self.inside, self.around = self._nested(groups)
        self.constant = self._constants()
        self.role: dict[int, Counter[str]] = {}
        self.writers: dict[int, list[int]] = {}
        self.readers: dict[int, list[int]] = {}
        self.nodes: dict[int, list[int]] = {}
        self._look()

    def _numbers(self, value: Value) -> frozenset[int]:
        labels = [d.labels.reshape(-1) for d in value.digits.values() if d.labels is not None]
        if not labels:
            return frozenset()
        atoms = np.concatenate(labels)
        classes = np.unique(self.coupling.strong[atoms[atoms > 0]])
        return self._groups(classes)

    def _groups(self, classes: Labels) -> frozenset[int]:
        """Groups of some classes, and of the rows that these are cells of."""
        rows = self.rows_of_class[classes].indices if self.rows_of_class.shape[1] else classes[:0]
        numbers = np.unique(np.concatenate([self.of_class[classes], self.of_class[rows]]))
        return frozenset(numbers[numbers >= 0].tolist())

    def _nested(self, groups: Sequence[Group]) -> tuple[set[int], set[int]]:
        """Groups of rows that lie in other rows (query heads in key-value heads), and groups that these lie in."""
        cells, rows = self.coupling.membership.nonzero()
        within = np.array([group.rows and group.pin is None for group in groups], bool)
        several = np.array([group.rows and group.width > 1 for group in groups], bool)
        inner, outer = self.of_class[cells], self.of_class[rows]
        nested = (inner >= 0) & (outer >= 0) & (inner != outer)
        nested[nested] = within[inner[nested]] & several[outer[nested]]
        return set(inner[nested].tolist()), set(outer[nested].tolist())

    def _constants(self) -> set[str]:
        """Initializers, and what is computed from them alone, or picked from them for each token."""
        known = {*self.graph.initializers, *self.coupling.records.places}
        for node in self.coupling.nodes:
            inputs = [str(v.name) for v in node.inputs if v is not None]
            if inputs and all(name in known for name in inputs):
                known |= {str(v.name) for v in node.outputs if v.name}
        return known

    def _inputs(self, index: int) -> list[str]:
        return [str(v.name) for v in self.coupling.nodes[index].inputs if v is not None]

    def _outputs(self, index: int) -> list[str]:
        return [str(v.name) for v in self.coupling.nodes[index].outputs if v.name]

    def carried(self, names: Iterable[str]) -> frozenset[int]:
        """Groups that values carry."""
        return frozenset().union(*(self.by_value.get(name, frozenset()) for name in names))

    def _vote(self, numbers: Iterable[int], role: str) -> None:
        for number in numbers:
            self.role.setdefault(number, Counter())[role] += 1

    def _look(self) -> None:
        self._compete()
        contractions: dict[int, list[frozenset[int]]] = {}
        for record in self.coupling.records.contractions:
            summed = [d.labels.reshape(-1) for a in record.axes for d in record.value.axes[a] if d.labels is not None]
            atoms = np.concatenate(summed) if summed else np.zeros(0, np.int64)
            numbers = self._groups(np.unique(self.coupling.strong[atoms[atoms > 0]]))
            contractions.setdefault(record.node, []).append(numbers)
            if record.inner and roles.stacks(self.coupling.nodes[record.node]):
                self._vote(numbers, "recurrent")
        for index, node in enumerate(self.coupling.nodes):
            reads, writes = self.carried(self._inputs(index)), self.carried(self._outputs(index))
            for number in reads | writes:
                self.nodes.setdefault(number, []).append(index)
            if index in contractions:
                self._contracts(index, frozenset().union(*contractions[index]), writes)
            elif roles.multiplies(node) and not self.constant.intersection(self._inputs(index)):
                self._vote(writes, "values")
            elif roles.of(node).arithmetic == "add":
                self._adds(index)
            self._stands_for(index, writes)

    def _compete(self) -> None:
        """Experts, of which a node that compares them all chooses some."""
        for contest in self.coupling.records.contests:
            for number in (n for n in self._numbers(contest.value) if self.groups[n].competes):
                self._vote([number], "experts")
                self.readers.setdefault(number, []).append(contest.node)

    def _stands_for(self, index: int, writes: frozenset[int]) -> None:
        """One-hot vectors: what is compared with all candidates, or picked from the rows of an identity matrix."""
        names, node = self._inputs(index), self.coupling.nodes[index]
        if roles.has(node, roles.Trait.EQUATES):
            self._vote(writes & self.carried(n for n in names if n in self.constant), "symbols")
        elif self.coupling.records.indices.keys() & set(names) and _is_identity(self.graph.initializers.get(names[0])):
            self._vote(writes, "symbols")

    def _contracts(self, index: int, summed: frozenset[int], writes: frozenset[int]) -> None:
        """A node that sums over channels: with a weight, or one activation against another (attention)."""
        names, node = self._inputs(index), self.coupling.nodes[index]
        shapes = self.graph.shapes.nominal.shape
        multiplies = roles.of(node).factors is not None  # else constants are tables of positions
        attends = roles.has(node, roles.Trait.ATTENDS)  # queries, keys and values may be packed into one
        if not multiplies and not attends:
            return
        weighted = multiplies and any(name in self.constant and len(shapes.get(name, ())) > 1 for name in names)
        several = attends or sum(bool(self.by_value.get(name)) for name in names) > 1
        if not weighted and several:
            self._vote(summed, "queries-keys")
            self._vote(writes - summed, "values")
            return
        convolves = roles.convolution(node) is not None
        for number in summed if weighted else ():
            self.readers.setdefault(number, []).append(index)
        if isinstance(roles.factors(node), roles.Projection):
            self._vote(writes - summed, "values")
        weights = self.carried(name for name in names if name in self.constant)
        for number in (writes & weights) - summed:
            self.writers.setdefault(number, []).append(index)
        self._vote(summed | (writes & weights), "channels" if convolves else "hidden")

    def _adds(self, index: int) -> None:
        """A sum of activations: what both carry is a residual stream."""
        names = [name for name in self._inputs(index) if name not in self.constant]
        if len(names) > 1:
            both = self.by_value.get(names[0], frozenset()) & self.by_value.get(names[1], frozenset())
            self._vote((n for n in both), "residual")

    def title(self, number: int, group: Group) -> Title:
        """The title of a group by its number."""
        role = self._role(number, group)
        writers, readers = self.writers.get(number, []), self.readers.get(number, [])
        if role == "residual" or not readers:
            path = shared_path([self._path(i) for i in writers or self.nodes.get(number, [])])
        elif role == "heads":
            path = shared_path([self._path(i) for i in writers])
        elif role == "experts":
            path = self._between(writers, self.nodes.get(number, []))
        else:
            path = self._between(writers, readers)
        carriers = writers or readers or self.nodes.get(number, [])
        said = place(path) or self._stretch(carriers)
        said = said or place(common_path(map(self._path, carriers)))
        if not said and role != "residual" and carriers:
            said = str(self.coupling.nodes[carriers[0]].name)
        what = self._what(number, group, role)
        text = f"{said}: {what}" if said else what
        names = tuple(filter(None, (group.name, role, text, ".".join(path))))
        layers = sorted({".".join(self._path(i)) for i in (*writers, *readers)} - {""})
        return Title(role, ".".join(path), text, names, tuple(layers), self._contents(number, group))

    def _what(self, number: int, group: Group, role: str) -> str:
        """The units of a group in words."""
        if role == "heads":
            return self._heads(number, group)
        if role == "experts":
            return self._experts(group)
        if role == "hidden" and group.rows:
            return f"{group.width} blocks of {self._cells(group)} hidden units"
        factors = [roles.factors(self.coupling.nodes[i]) for i in self.readers.get(number, ())]
        if role == "hidden" and any(isinstance(one, roles.Experts) and one.quantized for one in factors):
            return f"{group.width} blocks of hidden units"
        return TEXTS[role].format(n=group.width)

    def _experts(self, group: Group) -> str:
        """Experts in words: those of several groups go together, one of each, or the groups go."""
        first = self.coupling.classes_of(group.units[:1])
        if self.coupling.rivals[self.coupling.column[self.coupling.cells_of(first)]].any():
            return f"{group.width} groups of experts"
        every = self.coupling.first_positions(first)
        return TEXTS["experts"].format(n=group.width) + (f" in each of {every} groups" if every > 1 else "")

    def _heads(self, number: int, group: Group) -> str:
        """Attention heads in words: which ones, where key-value heads have query heads of their own, and their size."""
        inside, size = number in self.inside, self._size(number, group)
        kind = "query " if inside else "key-value " if number in self.around else ""
        each = " per key-value head" if inside and len(group.strata) == 1 else ""
        return f"{group.width} {kind}heads{f' of {size}' if size else ''}{each}"

    def _cells(self, group: Group) -> int:
        """How many units the first row of a group has."""
        return len(np.unique(self.coupling.cells_of(self.coupling.classes_of(group.units[:1]))))

    def _stretch(self, nodes: Sequence[int]) -> str:
        """From which to which of the numbered modules right inside the module that all of some nodes are in."""
        paths = [path for path in map(self._path, nodes) if path]
        depth = 0
        while paths and all(len(path) > depth and path[depth] == paths[0][depth] for path in paths):
            depth += 1
        numbers = {int(path[depth]) for path in paths if len(path) > depth and path[depth].isdecimal()}
        if not depth or len(numbers) < 2 or not all(len(path) > depth and path[depth].isdecimal() for path in paths):
            return ""
        word = paths[0][depth - 1]
        return f"{CONTAINERS.get(word, word)} {min(numbers)} to {max(numbers)}"

    def _between(self, writers: Sequence[int], readers: Sequence[int]) -> Path:
        """The module around layers that write and layers that read, or the one that writes if that is a whole net."""
        paths = [self._path(i) for i in (*writers, *readers)]
        around = common_path(paths) if all(paths) else ()
        numbered = any(token.isdecimal() or STAGE.fullmatch(token) for token in around)
        return around if numbered or not writers else shared_path([self._path(i) for i in writers])

    def _role(self, number: int, group: Group) -> str:
        votes = self.role.get(number, Counter())
        if group.pin is not None and group.pin.node == OUTPUT:
            return "outputs"
        for role in ("symbols", "experts"):
            if votes[role]:
                return role
        if group.rows:
            attends = votes["queries-keys"] + votes["values"]
            return (
                "heads"
                if attends
                else "convolution-groups"
                if votes["channels"]
                else "hidden"
                if votes["hidden"]
                else "other"
            )
        for role in ("recurrent", "queries-keys", "values"):
            if votes[role]:
                return role
        if votes["residual"] and len(self.writers.get(number, ())) > 1 and self.readers.get(number):
            return "residual"
        return "channels" if votes["channels"] else "hidden" if votes["hidden"] else "other"

    def _size(self, number: int, group: Group) -> int:
        """How many numbers a row of a group has where it has fewest, 0 where that is not known."""
        rows = np.zeros(self.coupling.columns, bool)
        rows[group.units] = True
        is_row = rows[self.coupling.column]
        sizes = [
            digit.size
            for index in self.nodes.get(number, ())
            for name in self._outputs(index)
            for digit in self.coupling.values[name].digits.values()
            for key in digit.deps
            if (labels := self.coupling.values[name].digits[key].labels) is not None
            and is_row[self.coupling.strong[labels[labels > 0]]].any()
        ]
        return min(sizes, default=0)

    def _path(self, index: int) -> Path:
        return module_path(self.coupling.nodes[index], [n for n in self._inputs(index) if n in self.graph.initializers])

    def _contents(self, number: int, group: Group) -> tuple[str, ...]:
        nodes = self.nodes.get(number, [])
        paths = {".".join(self._path(i)) for i in nodes} - {""}
        tensors = {
            n for i in nodes for n in (*self._inputs(i), *self._outputs(i)) if number in self.by_value.get(n, ())
        }
        return (*group.members, *sorted(paths | tensors | {str(self.coupling.nodes[i].name) for i in nodes}))
