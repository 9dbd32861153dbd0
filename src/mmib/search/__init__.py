"""Searching and comparing settings: sweeps and studies, and the runs that they start."""
