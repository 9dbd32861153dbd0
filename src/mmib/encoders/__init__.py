"""Pretrained text and image encoders: from a model hub, a local folder, or packages of the package index."""
