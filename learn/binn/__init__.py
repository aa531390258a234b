"""Physics that data teach: unknown terms of an equation as functions, and the laws they follow.

BINN          terms and the solver they are learned through, or the field they are learned in
Learned       a network of one number with bounds and monotonicity; Combination, Switch: laws
spreading     u_t = (D(u) u_x)_x + T(t) G(u/K(x)) u, the equation of a scratch assay
ordinary      du/dt of any terms
Discovered    the terms with their band, profiles solved forward, scores, equations
smoothed      profiles to start from, with less noise; cosines, to correct them by
compare       candidates of a law by what they explain
regress       a function as the shortest sum over a library: `Equation`
"""

from learn.binn.discover import BINN, Discovered, compare
from learn.binn.equation import Equation, regress, with_sd
from learn.binn.solve import Solve, cosines, ordinary, smoothed, spreading
from learn.binn.terms import LIBRARY, Combination, Learned, Switch, Term

__all__ = [
    "BINN",
    "LIBRARY",
    "Combination",
    "Discovered",
    "Equation",
    "Learned",
    "Solve",
    "Switch",
    "Term",
    "compare",
    "cosines",
    "ordinary",
    "regress",
    "smoothed",
    "spreading",
    "with_sd",
]
