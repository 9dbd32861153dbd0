"""Runs: their folders, loggers and checkpoints, and the reader of finished ones."""
