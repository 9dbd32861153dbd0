"""Converts annotated posts between mmib's JSON lines and the formats of annotation tools: `mmib convert`."""
