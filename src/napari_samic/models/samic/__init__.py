"""The paper's prompter: HSNet on frozen features, its training and its files."""
