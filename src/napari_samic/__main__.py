"""`python -m napari_samic`: the shell."""

from napari_samic.cli import main

main()
