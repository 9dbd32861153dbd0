"""Looks at a data set and writes a configuration that trains on it: `mmib init`."""
