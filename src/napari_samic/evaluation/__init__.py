"""What a segmentation is worth: metrics, matching of objects, doubtful results."""
