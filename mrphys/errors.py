"""What went wrong with an input, said so that its owner can mend it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input: where, what was found, what was expected, the likely cause."""

    where: str
    found: str
    expected: str
    likely_cause: str = ""
    level: Literal["error", "warning"] = "error"

    def __str__(self) -> str:
        text = f"{self.where}: found {self.found}; expected {self.expected}."
        return f"{text} Likely cause: {self.likely_cause}." if self.likely_cause else text


class InputError(ValueError):
    """Bad input, with every problem gathered so that all can be mended at once."""

    def __init__(self, *problems: Problem):
        self.problems = problems
        super().__init__("\n".join(str(problem) for problem in problems))
