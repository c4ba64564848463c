"""Settings that must be made before numpy is imported."""

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # tests run side by side: idle threads that spin slow all others
