"""Functions that users name as ``module:function``."""

from __future__ import annotations

import importlib
import re
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from onnxslim_learn.errors import InputError, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import ModuleType

_NAME = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def is_name(spec: str) -> bool:
    """Tell whether a text has the form ``module:function``."""
    return _NAME.fullmatch(spec) is not None


def by_name(spec: str, parameter: str) -> Callable[..., Any]:
    """Import what ``module:function`` names; modules of the working folder come first, as with ``python -m``.

    Args:
        spec: For example ``mine:loss``, or ``package.module:Class.method``.
        parameter: What it was given for; errors begin with it.

    Raises:
        InputError: If it names no function: says whether the form, the module, or the name in it is at fault.
    """
    where = f"{parameter} {spec}"
    if not is_name(spec):
        raise InputError(f"{where}: is not of the form module:function. Give for example mine:function.")
    module_name, _, path = spec.partition(":")
    target: Any = _module(module_name, where)
    file = getattr(target, "__file__", None)
    for name in path.split("."):
        try:
            target = getattr(target, name)
        except AttributeError:
            module = f"{module_name} ({file})" if file else module_name
            raise InputError(
                f"{where}: cannot be imported, since {module} has no {path}. Give module:function."
            ) from None
    if not callable(target):
        raise InputError(f"{where}: is no function but a {type(target).__name__}. Give module:function.")
    function: Callable[..., Any] = target
    return function


def _module(name: str, where: str) -> ModuleType:
    try:
        with _working_folder_first():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            place = f"neither {Path.cwd()} nor what is installed has a module {error.name}"
            raise InputError(f"{where}: cannot be imported, since {place}. Give module:function.") from error
        raise InputError(
            f"{where}: cannot be imported, since {name} needs {error.name}, which is missing. Install it."
        ) from error
    except (Exception, SystemExit) as error:
        said = f"{type(error).__name__} ({reason(error)})"
        raise InputError(f"{where}: cannot be imported, since {name} raised {said}. Correct it.") from error


@contextmanager
def _working_folder_first() -> Iterator[None]:
    """Search the working folder for modules, too; files made a moment ago count."""
    folder = str(Path.cwd())
    importlib.invalidate_caches()
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        sys.path.remove(folder)
