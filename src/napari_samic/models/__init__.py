"""Segmenters and prompters, one folder each."""
