"""The errors that a person can meet."""

from __future__ import annotations


class InputError(ValueError):
    """What a person gave cannot be used.

    Commands print it without a traceback and exit with code 2.

    Args:
        given: what was given, with its name and place, as one sentence.
        allowed: what would have been accepted.
        to_do: what to do about it.

    >>> print(InputError("K is 0.", "a whole number from 1", "Set noise.per_text=1."))
    K is 0.
      allowed: a whole number from 1
      to do: Set noise.per_text=1.
    """

    def __init__(self, given: str, allowed: str, to_do: str) -> None:
        super().__init__(given, allowed, to_do)
        self.given = given
        self.allowed = allowed
        self.to_do = to_do

    def __str__(self) -> str:
        return f"{self.given}\n  allowed: {self.allowed}\n  to do: {self.to_do}"


class Interrupted(RuntimeError):
    """The person stopped the work (Ctrl-C); a state to go on from is written. Exit code 130."""


class TrainingFailed(RuntimeError):
    """Training cannot go on (a non-finite loss); the last good checkpoint is kept. Exit code 3."""
