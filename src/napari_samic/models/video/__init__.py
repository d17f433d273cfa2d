"""From one frame to the next: flow, memory, carried masks, new objects."""
