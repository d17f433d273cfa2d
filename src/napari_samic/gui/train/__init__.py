"""The step Train: references to a prompter."""
