"""Inspects a data set and writes a configuration to train on it: `mmib init`."""
