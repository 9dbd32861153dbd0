"""Configurations of the command line, shipped with the package; see base.yaml."""
