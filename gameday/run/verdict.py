"""The verdict: from what happened to one word, one sentence and one exit code."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from gameday import defect
from gameday.events import Audited, Ended, Verdict
from gameday.states import Audit
from gameday.states import Verdict as Word

EXIT_CODES = {
    Word.PASSED: 0,
    Word.DEVIATED: 1,
    Word.ABORTED: 3,
    Word.REFUSED: 4,
    Word.NOT_RESTORED: 5,
    Word.DEFECT: defect.EXIT_CODE,
    Word.INTERRUPTED: 130,
}


@dataclass
class Outcome:
    """The reasons that an engine met on the way. The strongest decides."""

    refused: str = ""
    interrupted: str = ""
    aborted: str = ""
    deviations: list[str] = field(default_factory=list)
    allowed: list[str] = field(default_factory=list)  # faults that others ended, where the file allows it
    unseen: list[str] = field(default_factory=list)  # probes that were not measured while a fault was in
    left: list[str] = field(default_factory=list)  # objects that are not as before
    defect: str = ""  # what went wrong in gameday itself
    begun: bool = False  # whether anything may have been changed
    audited: bool = False
    audits: list[Audited] = field(default_factory=list)
    ended: Sequence[Ended] = ()
    reacted: int = 0  # pods that others ended, since they reacted to a fault

    def add_audit(self, audits: list[Audited]) -> None:
        self.audited = True
        self.audits = audits
        self.left += [f"{a.object}: {a.message}" for a in audits if a.state == Audit.LEFT]

    def verdict(self) -> Verdict:
        """One that says most: what was left behind comes before everything."""
        if self.left:
            return _verdict(Word.NOT_RESTORED, f"not everything was put back: {self.left[0]}", len(self.left))
        if self.defect:
            return _verdict(Word.DEFECT, f"gameday has a defect: {self.defect}; {self._ending()}")
        if self.refused:
            return _verdict(Word.REFUSED, self.refused)
        if self.interrupted:
            return _verdict(Word.INTERRUPTED, f"{self.interrupted}; {self._ending()}")
        if self.aborted:
            return _verdict(Word.ABORTED, f"{self.aborted}; {self._ending()}")
        if self.deviations:
            verdict = _verdict(Word.DEVIATED, self.deviations[0], len(self.deviations))
            return replace(verdict, reason="; ".join([verdict.reason, *self._exceptions()]))
        held = "steady state held within its bounds"
        if self.unseen:
            held += f" where it was seen; not measured while a fault was in: {_some(self.unseen)}"
        return _verdict(Word.PASSED, "; ".join([held, *self.allowed, self._ending()]))

    def _exceptions(self) -> list[str]:
        said = exceptions(self.audits, self.ended)
        if self.reacted:
            said.append(f"{_were(self.reacted, 'pod')} ended by what reacted to the fault")
        return said

    def _ending(self) -> str:
        """The end of all changes: no more than the audit saw."""
        if not self.begun:
            return "nothing was touched"
        if not self.audited:
            return "what was changed has not been looked at again"
        said = self._exceptions()
        seen = any(a.state == Audit.RESTORED and a.read_back for a in self.audits)
        whole = f"everything {'else ' if said else ''}was put back" if seen else ""
        return "; ".join([*said, *([whole] if whole else [])]) or "nothing was changed"


def exceptions(audits: Sequence[Audited], ended: Sequence[Ended] = ()) -> list[str]:
    """What was not put back, or could not be seen; one sentence for each kind."""
    kept = [a.object for a in audits if a.state == Audit.KEPT]
    said = [f"left as someone else changed it: {_some(kept)}"] if kept else []
    unseen = [a.object for a in audits if a.state == Audit.RESTORED and not a.read_back]
    said += [f"undone, but nobody can read back what it changed: {_some(unseen)}"] if unseen else []
    hidden = [e.object for e in ended if not e.done]
    said += [f"nobody could see whether it was ended: {_some(hidden)}"] if hidden else []
    # What was seen to be gone says more of an object than the change that was to end it.
    gone = {e.object for e in ended}
    done = {a.object: a.done for a in audits if a.state == Audit.IRREVERSIBLE and a.object not in gone}
    return said + _past([*(Ended(object=name, done=what) for name, what in done.items()), *ended])


def _past(ended: Sequence[Ended]) -> list[str]:
    """How many of each kind of object, by what was done with them."""
    same: dict[tuple[str, str], list[Ended]] = {}
    for e in sorted((e for e in ended if e.done), key=lambda e: (e.object, e.done)):
        same.setdefault((e.object.partition(" ")[0].removeprefix("Slurm").lower(), e.done), []).append(e)
    said = []
    for (noun, done), them in same.items():
        count, least = sum(e.count for e in them), "at least " * any(e.at_least for e in them)
        said.append(f"{least}{_were(count, noun)} {done}")
    return said


def _were(count: int, noun: str) -> str:
    """`1 pod was`, `3 policies were`."""
    many = f"{noun[:-1]}ies" if noun.endswith("y") else f"{noun}s"
    return f"1 {noun} was" if count == 1 else f"{count} {many} were"


def _some(names: list[str]) -> str:
    more = f" (and {len(names) - 1} more)" if len(names) > 1 else ""
    return names[0] + more


def _verdict(word: Word, reason: str, count: int = 1) -> Verdict:
    more = f" (and {count - 1} more)" if count > 1 else ""
    return Verdict(verdict=word, reason=reason + more, exit_code=EXIT_CODES[word])
