"""Segmentation losses for salient objects, in PyTorch and JAX.

Import the backend you train with: ``saliency_losses.torch`` or ``saliency_losses.jax``.
``saliency_losses.reference`` holds the exact definitions in NumPy. This module imports neither.
"""

__version__ = "0.1.0"
