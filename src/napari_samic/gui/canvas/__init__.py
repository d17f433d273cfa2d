"""How our own layers look, and when they are seen and repainted."""
