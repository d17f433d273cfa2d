"""Segmenters and prompters, one room each."""
