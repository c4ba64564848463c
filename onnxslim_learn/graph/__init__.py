"""The model as data: normal form, shapes, constants, dataflow."""
