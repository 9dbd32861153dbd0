"""Runs: folders, loggers, checkpoints, and the reader of finished runs."""
