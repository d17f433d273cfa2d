"""The folder of a run: ledger, tables, and what in it is still valid."""
