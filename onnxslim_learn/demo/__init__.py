"""The trained network and held-out data that ship with the package."""
