"""Run the command line from a checkout: ``python cli.py analyze model.onnx``."""

from onnxslim_learn.cli.commands import main

raise SystemExit(main())
