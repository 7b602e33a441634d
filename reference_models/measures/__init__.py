"""Measures of saliency maps and segmentations, per image and as means."""
