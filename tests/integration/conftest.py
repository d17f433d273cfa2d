from napari_samic.gui.runner.jobs import load_torch

# Torch before any window, so that a file run alone does not meet Mesa's LLVM with triton's.
load_torch()
