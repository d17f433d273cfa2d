"""From a predicted map to better masks: what to ask a segmenter, and what to do with its answers.

`strategies` makes guesses of a map, `asking` asks for them, `improve` betters what was found,
`uncertainty` says how far an answer holds.
All talk to a segmenter through `contracts.Segmenter`; none knows torch, napari or a model.
"""
