"""Annotated posts between the project's JSON lines and annotation tools: `mmib convert`."""
