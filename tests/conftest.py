"""Settings that must be made before numpy is imported."""

import os
import tempfile

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # tests run side by side: idle threads that spin slow all others
os.environ.setdefault("ONNXSLIM_LEARN_CACHE", tempfile.mkdtemp(prefix="onnxslim-cache-"))  # not that of the user


def pytest_addoption(parser):
    parser.addoption("--graphs", type=int, default=200, help="how many large random graphs the slow run looks at")
