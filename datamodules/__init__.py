"""Readers of the data sets, their images and features, and the demo corpus."""
