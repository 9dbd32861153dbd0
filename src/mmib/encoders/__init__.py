"""Pretrained text and image encoders, from a model hub, a local folder, or the package index."""
