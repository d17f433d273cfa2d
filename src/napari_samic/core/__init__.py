"""The nouns of the package: types, settings, errors. Imports nothing of ours."""
