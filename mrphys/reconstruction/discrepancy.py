"""How much to regularise where the noise is known: until as much is left over as it leaves."""

import math
from collections.abc import Callable
from typing import Any

WITHIN = 0.02
"""Of |A x - y|² / 2Mσ², well inside the 5 % that are promised."""
STEPS, FACTOR, FARTHEST = 30, 8.0, 1e9


def find_weight(
    discrepancy: Callable[[float, Any], tuple[float, Any]], first: float
) -> tuple[float, Any, bool]:
    """λ of |A x_λ - y|² = 2 M σ², what belongs to it, and whether it was found within `WITHIN`.

    discrepancy(λ, near) → |A x_λ - y|² / 2Mσ² and what was found, from what was found near there.
    It grows with λ. A bracket by factors of 8 from `first`, then false position in logarithms of
    both with a middle step now and then (Illinois); given up 9 decades away.

    Morozov 1966, Soviet Math. Dokl. 7:414; Dowell, Jarratt 1971, doi:10.1007/BF01934364.

    >>> find_weight(lambda weight, near: (weight**2 / 4, None), 1e-3)[0]
    2.0
    """
    low = high = None
    weight, near = first, None
    best = (math.inf, first, None)
    kept = 0
    for _ in range(STEPS):
        ratio, near = discrepancy(weight, near)
        off = math.log(max(ratio, 1e-300))
        best = min(best, (abs(off), weight, near), key=lambda found: found[0])
        if abs(off) <= WITHIN:
            return weight, near, True
        here = [math.log(weight), off]
        if off < 0:
            kept = min(kept, 0) - 1
            low = here
            if kept < -1 and high is not None:
                high[1] /= 2
        else:
            kept = max(kept, 0) + 1
            high = here
            if kept > 1 and low is not None:
                low[1] /= 2
        if low is None or high is None:
            weight = weight * FACTOR if off < 0 else weight / FACTOR
            if not 1 / FARTHEST <= weight / first <= FARTHEST:
                break
        elif high[0] - low[0] < 1e-3:
            break
        else:
            share = -low[1] / (high[1] - low[1])
            weight = math.exp(low[0] + min(max(share, 0.05), 0.95) * (high[0] - low[0]))
    return best[1], best[2], False
