"""The verdict: from what happened to one word, one sentence and one exit code."""

from __future__ import annotations

from dataclasses import dataclass, field

from gameday.events import Audited, Verdict

EXIT_CODES = {
    "passed": 0,
    "deviated": 1,
    "aborted": 3,
    "refused": 4,
    "not-restored": 5,
    "interrupted": 130,
}


@dataclass
class Outcome:
    """What the engine learned on the way. The strongest reason decides."""

    refused: str = ""
    interrupted: str = ""
    aborted: str = ""
    deviations: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)  # objects that are not as before

    def add_audit(self, audits: list[Audited]) -> None:
        self.left += [f"{a.object}: {a.message}" for a in audits if a.state == "left"]

    def verdict(self) -> Verdict:
        """One that says most: what was left behind comes before everything."""
        if self.left:
            return _verdict("not-restored", f"not everything was put back: {self.left[0]}", len(self.left))
        if self.refused:
            return _verdict("refused", self.refused)
        if self.interrupted:
            return _verdict("interrupted", f"{self.interrupted}; everything was put back")
        if self.aborted:
            return _verdict("aborted", f"{self.aborted}; everything was put back")
        if self.deviations:
            return _verdict("deviated", self.deviations[0], len(self.deviations))
        return _verdict("passed", "steady state held within its bounds, and everything was put back")


def _verdict(word: str, reason: str, count: int = 1) -> Verdict:
    more = f" (and {count - 1} more)" if count > 1 else ""
    return Verdict(verdict=word, reason=reason + more, exit_code=EXIT_CODES[word])
