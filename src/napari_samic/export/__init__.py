"""Label images to what other tools read, and to pictures."""
