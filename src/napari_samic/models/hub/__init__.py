"""Names to weights: the catalog, checksummed downloads, entry points, devices."""
