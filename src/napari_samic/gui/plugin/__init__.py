"""What the manifest names: commands, readers, writers, sample data."""
