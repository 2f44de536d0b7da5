"""What `decide` answers, and the chain of steps that led there."""

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Step:
    """One link of the chain: what was looked at, its value, and why it says so."""

    name: str
    value: float
    why: str


@dataclass(frozen=True, slots=True)
class Decision:
    """What is wanted now, and why."""

    replicas: int  # hot: ready + starting
    asleep: int
    reason: str  # one sentence, with numbers
    steps: tuple[Step, ...]

    @property
    def rule(self) -> str:
        """The name of the step that gave the reason."""
        return next((s.name for s in reversed(self.steps) if s.why == self.reason), "")


@dataclass(slots=True)
class Chain:
    """A count on its way through the rules; the last rule that moved it gives the reason."""

    count: int
    reason: str
    steps: list[Step] = field(default_factory=list)

    def note(self, name: str, value: float, why: str) -> None:
        """Tell a value that the count is made from."""
        self.steps.append(Step(name, value, why))

    def at_least(self, name: str, floor: int, why: str) -> None:
        """Raise the count to a floor; a floor that changes nothing is not told."""
        if floor > self.count:
            self._move(name, floor, why)

    def at_most(self, name: str, ceiling: int, why: str) -> None:
        """Lower the count to a ceiling; a ceiling that changes nothing is not told."""
        if ceiling < self.count:
            self._move(name, ceiling, why)

    def _move(self, name: str, count: int, why: str) -> None:
        self.count = count
        self.reason = why
        self.steps.append(Step(name, count, why))
