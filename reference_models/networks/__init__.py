"""Networks of the five papers and their backbones, in PyTorch and Flax."""
