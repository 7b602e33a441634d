"""Measures of saliency maps and segmentations, for each image and as means."""
