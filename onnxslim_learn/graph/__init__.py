"""The model as data: normal form, shapes, axis layouts, operator table, coupling."""
