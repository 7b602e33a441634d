"""Saliency maps of photographs: which files, what is written, and the network's part."""
