"""Random streams: the numbers that, with the seed of a run, start its generators.

Each use of randomness has its own stream, so that none changes when another draws more numbers.
"""

SPLIT = 1
SWAPPED_LABELS = 2
IMAGE_ORDER = 3
TRAINING_STEP = 4
NOISE = 5
STRENGTH = 6
AUGMENTATION = 7
