"""SAM and its relatives as a segmenter."""
