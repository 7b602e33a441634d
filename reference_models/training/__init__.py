"""Training, trained networks on disk, and their measures on the test sets."""
