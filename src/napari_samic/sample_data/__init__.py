"""Drawn scenes with their truth, the sample sets made of them, and a public one."""
