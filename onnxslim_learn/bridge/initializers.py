"""Initializers as torch tensors and back, bit for bit; and the attribute paths that stand for their names."""

from __future__ import annotations

import keyword
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from onnxslim_learn.bridge.ops.kinds import DTYPES, HALF
from onnxslim_learn.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

    import onnx_ir as ir

BYTES = {torch.bfloat16: np.int16, **{DTYPES[kind]: np.uint8 for kind in (17, 18, 19, 20, 24)}}
"""Torch types that NumPy lacks -> the type that holds their bits."""

RESERVED = frozenset(dir(fx.GraphModule(nn.Module(), fx.Graph())))
"""Attributes that a module has already."""


def to_torch(tensor: ir.TensorProtocol, *, master: bool = False) -> torch.Tensor:
    """Copy an initializer into the torch type that carries it.

    Args:
        tensor: The initializer.
        master: Whether half precision becomes float32.

    Raises:
        InputError: If its element type has no torch type (strings).
    """
    kind = int(tensor.dtype)
    if kind not in DTYPES:
        raise InputError(f"initializer {tensor.name}: torch has no {tensor.dtype.name}. Remove what reads it.")
    array, wanted = tensor.numpy(), DTYPES[kind]
    if wanted in BYTES:
        bits = np.ascontiguousarray(array).view(BYTES[wanted])
        converted = torch.from_numpy(bits.copy()).view(wanted)
    else:
        converted = torch.from_numpy(np.array(array, _numpy(wanted), order="C", copy=True))
    return converted.to(torch.float32) if master and kind in HALF else converted


def _numpy(kind: torch.dtype) -> Any:
    return torch.empty(0, dtype=kind).numpy().dtype


def to_numpy(value: torch.Tensor, kind: ir.DataType) -> np.ndarray[Any, Any]:
    """Copy a torch tensor into an array of an ONNX element type; float32 is rounded where the type is narrower."""
    wanted = DTYPES[int(kind)]
    tensor = value.detach().to("cpu").to(wanted).contiguous()
    if wanted in BYTES:
        return tensor.view(torch.from_numpy(np.empty(0, BYTES[wanted])).dtype).numpy().view(kind.numpy())
    return tensor.numpy().astype(kind.numpy(), copy=True)


def paths(names: Iterable[str]) -> dict[str, str]:
    """Give every initializer an attribute path: its own name, dots leading through submodules, where that is possible.

    Where it is not (an empty part, a part that Python or a module reserves, a name that leads through another one),
    dots, quotes and backslashes are written ``%2E`` and so on in a single part, and a ``%`` ends a reserved word.
    """
    known = dict.fromkeys(names)
    return {name: name if _is_path(name, known) else _quoted(name) for name in known}


def _is_path(name: str, known: Container[str]) -> bool:
    parts = name.split(".")
    if any(not part or part in RESERVED or keyword.iskeyword(part) or re.search(r'[%"\\\s]', part) for part in parts):
        return False
    return not any(".".join(parts[:k]) in known for k in range(1, len(parts)))


def _quoted(name: str) -> str:
    quoted = re.sub(r'[%."\\\s]', lambda match: f"%{ord(match[0]):02X}", name)
    return quoted if quoted and quoted not in RESERVED and not keyword.iskeyword(quoted) else f"{quoted}%"


def place(root: nn.Module, path: str, tensor: torch.Tensor) -> None:
    """Register a parameter or buffer under an attribute path, making submodules on the way."""
    *parts, last = path.split(".")
    module = root
    for part in parts:
        if part not in module._modules:
            module.add_module(part, nn.Module())
        module = module.get_submodule(part)
    if isinstance(tensor, nn.Parameter):
        module.register_parameter(last, tensor)
    else:
        module.register_buffer(last, tensor)


def look_up(root: nn.Module, path: str) -> torch.Tensor:
    """The parameter or buffer under an attribute path."""
    prefix, _, last = path.rpartition(".")
    tensor: torch.Tensor = getattr(root.get_submodule(prefix), last)
    return tensor


def parameters(module: fx.GraphModule) -> dict[str, nn.Parameter]:
    """The parameters of a bridged module by the names of their initializers."""
    stored: Mapping[str, str] = module.meta["initializers"]
    tensors = {name: look_up(module, path) for name, path in stored.items()}
    return {name: value for name, value in tensors.items() if isinstance(value, nn.Parameter)}
