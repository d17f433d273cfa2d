"""The folder of a run: journal, provenance, tables, and what in it is still valid."""
