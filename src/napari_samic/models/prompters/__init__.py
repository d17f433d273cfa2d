"""Prompters that no network is trained for, by name."""
