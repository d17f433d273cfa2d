"""Ways of segmenting compared on public data sets. Nobody in the window needs it."""
