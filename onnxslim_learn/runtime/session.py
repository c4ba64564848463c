"""Opens models in onnxruntime, and says in one sentence what it has against them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from onnxslim_learn.array_types import Feeds
from onnxslim_learn.errors import InputError, reason
from onnxslim_learn.runtime import stopping

if TYPE_CHECKING:
    from collections.abc import Callable

    from onnxruntime import InferenceSession, SessionOptions

Model: TypeAlias = str | Path | bytes

CPU = "CPUExecutionProvider"
FAITHFUL = "faithful"  # optimisations that leave values as a file says, but for rounding
PADS_FUSED = "Pad_Fusion"  # pads what is pooled by zeros, as if there was nothing: other numbers than the file says
# Where a provider keeps tensors; the others take and give them in main memory.
DEVICES = {"CUDAExecutionProvider": "cuda", "TensorrtExecutionProvider": "cuda", "DmlExecutionProvider": "dml"}


def open_session(
    model: Model,
    *,
    threads: int = 1,
    provider: str = CPU,
    optimize: bool | str = True,
    profile_to: Path | None = None,
) -> InferenceSession:
    """Open a model, a path or bytes, in onnxruntime with a fixed number of threads; only errors are logged.

    What the provider lacks runs on the CPU. ``optimize=False`` runs the file as written, for verification;
    ``optimize=FAITHFUL`` with those optimisations that leave values as the file says. A session opened with
    ``profile_to`` writes a profile whose path begins so, and ``end_profiling()`` returns that path.

    Raises:
        InputError: If the model is missing or refused, or the provider is not available.
    """
    return create(model, session_options(threads, optimize, profile_to), provider)


def session_options(threads: int = 1, optimize: bool | str = True, profile_to: Path | None = None) -> SessionOptions:
    """Settings as :func:`open_session` takes them.

    Raises:
        InputError: If there is no such number of threads.
    """
    import onnxruntime as ort

    if threads < 1:
        raise InputError(f"threads: a whole number of at least 1 is needed, but got {threads}.")
    options = ort.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.add_session_config_entry("session.force_spinning_stop", "1")  # idle threads must not slow other sessions
    if optimize is not True:  # nobody times it
        options.add_session_config_entry(
            "session.intra_op.allow_spinning", "0"
        )  # opens 25 times as fast with two threads
    if optimize == FAITHFUL:
        options.add_session_config_entry("optimization.disable_specified_optimizers", PADS_FUSED)
        options.add_session_config_entry("session.disable_quant_qdq", "1")
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.enable_profiling, options.profile_file_prefix = profile_to is not None, str(profile_to or "")
    return options


def check_provider(provider: str) -> None:
    """Refuse an execution provider that this onnxruntime does not have."""
    import onnxruntime as ort

    if provider not in (available := ort.get_available_providers()):
        raise InputError(f"⟨provider⟩ {provider}: choose one that this onnxruntime has, {', '.join(available)}.")


def create(model: Model, options: SessionOptions, provider: str) -> InferenceSession:
    """Build a session.

    onnxruntime fails to optimise some models, files among them that it has written itself. Where it does, the session
    has fewer optimisations, and from then on the options ask for no more: what is opened with them compares.

    Raises:
        InputError: If the model is missing or refused, or the provider is not available.
    """
    import onnxruntime as ort

    check_provider(provider)
    ort.disable_telemetry_events()
    with saying(model, "onnxruntime must accept the model", "Export it for this onnxruntime, or update it."):
        session = _opened(model, options, provider)
    if provider not in session.get_providers():
        raise InputError(f"provider: {provider} must start on this machine, but it does not.")
    return session


def _opened(model: Model, options: SessionOptions, provider: str) -> InferenceSession:
    """A session with as many optimisations as the options ask for, or as many as the model can be opened with."""
    import onnxruntime as ort

    levels = ort.GraphOptimizationLevel
    asked, refusals = options.graph_optimization_level, list[Exception]()
    fewer = (levels.ORT_ENABLE_EXTENDED, levels.ORT_ENABLE_BASIC, levels.ORT_DISABLE_ALL)
    for level in (asked, *(one for one in fewer if int(one) < int(asked))):
        options.graph_optimization_level = level
        try:
            session: InferenceSession = session_type()(model, options, providers=[provider])
        except Exception as error:
            refusals.append(error)
        else:
            return session
    options.graph_optimization_level = asked
    raise refusals[0]


@cache
def session_type() -> type[InferenceSession]:
    """Sessions whose runs end when the process is told to end."""
    import onnxruntime as ort

    class Session(ort.InferenceSession):  # type: ignore[misc]
        def run(self, output_names: Any, input_feed: Any, run_options: Any = None) -> Any:
            with stopping.running() as options:
                return super().run(output_names, input_feed, run_options or options)

        def run_with_iobinding(self, iobinding: Any, run_options: Any = None) -> None:
            with stopping.running() as options:
                super().run_with_iobinding(iobinding, run_options or options)

    return Session


def optimizations(options: SessionOptions) -> str:
    """What onnxruntime does to a model before it runs it: ``all``, ``extended``, ``basic``, ``none``."""
    level = str(options.graph_optimization_level.name)
    return "none" if level == "ORT_DISABLE_ALL" else level.removeprefix("ORT_ENABLE_").lower()


@contextmanager
def saying(model: Model, need: str, advice: str) -> Iterator[None]:
    """Turn any exception, for onnxruntime's share no base, into one sentence without codes and source lines."""
    try:
        if not isinstance(model, bytes) and not Path(model).is_file():
            raise FileNotFoundError("no file at this path")
        yield
    except Exception as error:
        raise InputError(
            f"{'model' if isinstance(model, bytes) else model}: {need}, but got: {reason(error)}. {advice}"
        ) from error


def runner(session: InferenceSession, feeds: Feeds, *, provider: str = CPU, bind: bool = False) -> Callable[[], object]:
    """A call that runs a session on the same inputs every time.

    Args:
        session: The session.
        feeds: Its inputs.
        provider: What it runs on.
        bind: Whether inputs lie on the device already and outputs stay there, so that no run copies them.
    """
    if not bind:
        return partial(session.run, None, feeds)
    import onnxruntime as ort

    binding, device = session.io_binding(), DEVICES.get(provider, "cpu")
    for name, array in feeds.items():
        binding.bind_ortvalue_input(name, ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), device, 0))
    for output in session.get_outputs():
        binding.bind_output(output.name, device)
    return partial(session.run_with_iobinding, binding)
