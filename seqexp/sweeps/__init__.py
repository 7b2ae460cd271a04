"""Sweeps: grids and searches over many runs, which go on where they stopped."""
