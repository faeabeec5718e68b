"""Stand-in checkpoints for machines without the published weights: the true networks with hand-set weights.

They find drawn and photographed faces by the color of skin, and paint a mouth that opens with the loudness of the
speech. So the whole service can be run and tested, but its results are made up.
"""

from .writer import README_FILE, mark, write

__all__ = ["README_FILE", "mark", "write"]
