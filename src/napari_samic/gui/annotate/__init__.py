"""The step Annotate: points and boxes to masks, live."""
