"""How tests run: settings that must be made before numpy is imported, and what is left to the slow run."""

import os
import signal
import tempfile
from itertools import groupby

import pytest
from hypothesis import Phase, settings

for library in ("OMP", "OPENBLAS"):  # tests run side by side: idle threads that spin slow all others
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as shells leave it in what they run in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)
os.environ.setdefault("ONNXSLIM_LEARN_CACHE", tempfile.mkdtemp(prefix="onnxslim-cache-"))  # not that of the user

settings.register_profile(
    "slow",
    max_examples=100,
    deadline=None,
    derandomize=True,
    database=None,
    phases=(Phase.explicit, Phase.generate, Phase.shrink),
)
settings.register_profile("default", settings.get_profile("slow"), max_examples=40)


ON_ALL_NETS = {
    "test_slim_is_mask",
    "test_normal_form_computes_the_same",
    "test_price_of_a_plan_is_the_price_of_its_file",
    "test_every_operator_of_the_graph_table_has_a_torch_function",
}
"""Laws that the default run, too, checks on all nets as they are."""


def pytest_addoption(parser):
    parser.addoption("--graphs", type=int, default=200, help="how many large random graphs the slow run looks at")
    parser.addoption("--every-case", action="store_true", help="look at every file that is not as it should be")
    parser.addoption("--graph-seed", type=int, default=0, help="which random graphs are paired with random plans")


def in_default_run(config):
    """Whether slow tests are left out."""
    return "not slow" in config.option.markexpr


def pytest_configure(config):
    if not config.getoption("--hypothesis-profile"):
        settings.load_profile("default" if in_default_run(config) else "slow")


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config, items):
    """Mark as slow: laws on nets that others stand for and, in the slow run, laws with random examples.

    Laws on nets that an older onnxruntime cannot run are skipped, each with the version that it needs.
    """
    from nets.forms import NETS as FORMS
    from nets.fused import in_all_forms, plain
    from nets.operators import EXAMPLES
    from nets.representatives import REPRESENTATIVES
    from nets.runtimes import lacking
    from nets.variants import VARIANTS
    from nets.zoo import NETS

    for item in items:
        for why in filter(None, map(lacking, sorted(strings(item)))):
            item.add_marker(pytest.mark.skip(reason=why))
    names = {*in_all_forms({**NETS, **VARIANTS, **EXAMPLES}), *FORMS}
    for _, law in groupby(items, lambda item: item.nodeid.partition("[")[0]):
        about_nets = [(item, found) for item in law if (found := names.intersection(strings(item)))]
        others = [(item, found) for item, found in about_nets if not found & REPRESENTATIVES]
        others = others[len(others) == len(about_nets) :]  # a law about none of them keeps its first net
        for item, found in others:
            if item.originalname not in ON_ALL_NETS or any(name != plain(name) for name in found):
                item.add_marker(pytest.mark.slow)
    if not in_default_run(config):
        for item in items:
            if getattr(item.obj, "is_hypothesis_test", False):
                item.add_marker(pytest.mark.slow)


def strings(item):
    """The values of a test's parameters that are names."""
    params = item.callspec.params if hasattr(item, "callspec") else {}
    return {value for value in params.values() if isinstance(value, str)}
