"""Makes `maps` importable."""
