"""Multimodal entity and relation extraction from social media posts with a variational information bottleneck."""
