"""Pictures, data sets, generated scenes and distortions of images."""
