"""``python -m onnxslim_learn.cli``."""

from onnxslim_learn.cli import main

raise SystemExit(main())
