"""What is annotated, in plain Python: objects, images with their undo, classes."""
