"""How long `import napari_samic` takes in a fresh interpreter, and what it drags in."""

import subprocess
import sys

REPEATS = 10
CODE = """
import sys, time
start = time.perf_counter()
import napari_samic
spent = time.perf_counter() - start
roots = {name.split(".")[0] for name in sys.modules}
print(1e3 * spent, *sorted(roots & {"torch", "numpy", "dask", "napari", "qtpy", "PyQt6"}))
"""


def main() -> None:
    runs = [
        subprocess.check_output([sys.executable, "-c", CODE], text=True).split()
        for _ in range(REPEATS)
    ]
    times_ms = sorted(float(run[0]) for run in runs)
    print(
        f"import napari_samic: {times_ms[0]:.1f} ms (best of {REPEATS}), worst {times_ms[-1]:.1f}"
    )
    print("heavy modules loaded:", ", ".join(runs[0][1:]) or "none")


if __name__ == "__main__":
    main()
