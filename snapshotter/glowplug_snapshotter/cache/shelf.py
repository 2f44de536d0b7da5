"""The byte budget: least recently used leaves first, never what is in use or pinned; pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class Place:
    """The room of one thing."""

    size: int
    used: float
    users: int = 0
    pinned_until: float = 0.0

    def free(self, now: float) -> bool:
        """Whether nobody would miss it now."""
        return self.users == 0 and self.pinned_until <= now


class Shelf:
    """What lies on the disk, in bytes; times are of one clock that the caller passes in."""

    def __init__(self, budget: int) -> None:
        self.budget = budget
        self.bytes = 0
        self._places: dict[str, Place] = {}

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __len__(self) -> int:
        return len(self._places)

    def names(self) -> Iterable[str]:
        """Everything that has a place."""
        return self._places.keys()

    def put(self, name: str, size: int, used: float) -> None:
        """Place what was found on the disk at the start, fitting or not."""
        self.bytes += size
        self._places[name] = Place(size, used)

    def reserve(self, name: str, size: int, now: float) -> tuple[str, ...] | None:
        """Make a place; return what had to leave for it, None (and nothing left) if it cannot fit.

        A thing that has its place keeps it, and nothing leaves.
        """
        if name in self._places:
            return ()
        leaving = self._victims(self.bytes + size - self.budget, now)
        if leaving is None:
            return None
        for victim in leaving:
            self.remove(victim)
        self.put(name, size, now)
        return leaving

    def trim(self, now: float) -> tuple[str, ...]:
        """Let leave what is over the budget (one that shrank), as far as it may."""
        leaving: list[str] = []
        while self.bytes > self.budget and (one := self._victims(1, now)):
            self.remove(one[0])
            leaving.append(one[0])
        return tuple(leaving)

    def place(self, name: str) -> Place:
        """Return a thing's place; another one if it lost it and was placed again."""
        return self._places[name]

    def use(self, place: Place, now: float) -> None:
        """Keep it here until `done` is called as often."""
        place.users += 1
        place.used = now

    def done(self, place: Place) -> None:
        """One user less."""
        place.users -= 1

    def pin(self, name: str, until: float) -> None:
        """Keep it here until then, used or not; a later time wins."""
        place = self._places.get(name)
        if place is not None:
            place.pinned_until = max(place.pinned_until, until)

    def remove(self, name: str) -> None:
        """Forget it."""
        place = self._places.pop(name, None)
        if place is not None:
            self.bytes -= place.size

    def _victims(self, excess: int, now: float) -> tuple[str, ...] | None:
        chosen: list[str] = []
        movable = ((n, p) for n, p in self._places.items() if p.free(now))
        for name, place in sorted(movable, key=lambda item: item[1].used):
            if excess <= 0:
                break
            chosen.append(name)
            excess -= place.size
        return tuple(chosen) if excess <= 0 else None
