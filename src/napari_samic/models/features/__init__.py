"""Encoders and what is computed from an image by them."""
