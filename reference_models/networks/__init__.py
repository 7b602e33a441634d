"""The five papers' networks, their backbones, and what both frameworks share of them."""
