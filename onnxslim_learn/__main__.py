"""``python -m onnxslim_learn``."""

from onnxslim_learn.cli import main

raise SystemExit(main())
