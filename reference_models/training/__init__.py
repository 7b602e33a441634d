"""Training, trained networks, and their measures on every test set."""
