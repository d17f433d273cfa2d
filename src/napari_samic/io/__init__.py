"""Files in and out: images, masks, prompts, reviews, caches. Knows no model and no napari."""
