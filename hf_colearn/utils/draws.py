"""Random draws that are a function of (sample id, epoch, seed) and advance no generator.

Shapes: B sample ids of a batch.
"""

import numpy as np


def draw_bits(sample_ids: np.ndarray, epoch: int, seed: int, stream: int = 1) -> np.ndarray:
    """64 random bits a sample, a hash of (seed, stream, epoch, sample id).

    The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood, OOPSLA 2014). Draws of different streams
    are independent. The bits are `(B,)`, uint64.
    """
    bits = np.zeros(len(sample_ids), dtype=np.uint64)
    with np.errstate(over="ignore"):
        for word in (seed, stream, epoch, np.asarray(sample_ids, dtype=np.int64)):
            bits = bits ^ np.asarray(word, dtype=np.int64).astype(np.uint64)
            bits = bits + np.uint64(0x9E3779B97F4A7C15)
            bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
            bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
            bits = bits ^ (bits >> np.uint64(31))
    return bits
