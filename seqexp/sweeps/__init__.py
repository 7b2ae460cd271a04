"""Sweeps: grids and searches over many runs, which can be resumed."""
