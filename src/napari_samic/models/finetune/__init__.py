"""An encoder and a mask decoder fine-tuned to the references."""
