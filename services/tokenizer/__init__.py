"""Service 1: pixels to image codes. Readers of picture files, preprocessing, cache, VQ-GAN encoder."""
