"""From a predicted map to better masks: what to ask a segmenter, and what to do with its answers.

`strategies` makes region proposals of a map, `prompting` asks for them, `refinement` betters masks,
`uncertainty` says how far an answer holds.
All talk to a segmenter through `core.types.Segmenter`; none knows torch, napari or a model.
"""
