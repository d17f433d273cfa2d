"""The packaged small SAM."""
