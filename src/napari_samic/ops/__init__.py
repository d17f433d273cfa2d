"""Arrays in, arrays out: heat maps, peaks, label fusion, shapes, hints. Knows no file."""
