"""Sweeps and studies: search and comparison of settings, and the runs that they start."""
