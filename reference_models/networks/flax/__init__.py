"""The reference models in JAX and Flax."""
