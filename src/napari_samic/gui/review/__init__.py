"""The step Review: the queue, verdicts, edits, export, the recipe."""
