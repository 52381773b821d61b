"""The XIDs that operators meet: their names, and what NVIDIA says is to be done about each.

Numbers, names and resolution buckets are those of NVIDIA's XID catalogue for Ampere and newer GPUs
(docs.nvidia.com/deploy/xid-errors, "Analyzing Xid Errors with the Xid Catalog"), column "immediate action".
All whose action is RESET_GPU or RESTART_BM are here.
"""

from __future__ import annotations

from dataclasses import dataclass

from gameday.experiment.problems import did_you_mean

HIGHEST = 999

_ACTIONS = {
    "RESTART_BM": "the node must be drained and restarted",
    "RESET_GPU": "the node must be drained and the GPU reset",
    "WORKFLOW_XID_48": "the node must be drained and the GPU reset; repeated, the GPU is replaced",
    "WORKFLOW_NVLINK_ERR": "the node must be drained and the GPU reset; repeated, its NVLink is checked",
    "RESTART_APP": "the application restarts; the node must not be drained for it",
    "WORKFLOW_XID_45": "it follows another error or an end by signal; alone it asks for nothing",
    "IGNORE": "nobody needs to act, and nothing may drain the node for it",
    "XID_154": "it names the recovery action that another XID asks for",
    "": "not in NVIDIA's catalogue as we know it: see docs.nvidia.com/deploy/xid-errors",
}
_TABLE = """\
13 RESTART_APP graphics engine exception
31 RESTART_APP memory page fault
43 IGNORE GPU stopped processing
45 WORKFLOW_XID_45 preemptive cleanup
46 RESET_GPU GPU timeout
48 WORKFLOW_XID_48 double bit ECC error
62 RESET_GPU micro-controller halt
63 IGNORE row remapped
64 RESET_GPU row remap failure
69 RESTART_APP graphics engine class error
74 WORKFLOW_NVLINK_ERR NVLink error
79 RESTART_BM GPU has fallen off the bus
92 IGNORE high single bit ECC error rate
94 RESTART_APP contained memory error
95 RESET_GPU uncontained memory error
109 RESET_GPU context switch timeout
110 RESET_GPU security fault
119 RESET_GPU GSP RPC timeout
120 RESET_GPU GSP error
136 RESET_GPU link training failed
140 RESET_GPU unrecovered ECC error
143 RESET_GPU GPU initialization error
154 XID_154 GPU recovery action changed
155 RESET_GPU NVLink software-defined error
156 RESET_GPU resource retirement event
158 RESET_GPU GPU fatal timeout
"""
_ALSO = {"fell off the bus": 79, "double bit ecc": 48, "dbe": 48, "nvlink": 74, "row remap": 63}


@dataclass(frozen=True)
class Xid:
    """One of them. `fatal`: the GPU can't be used until somebody does something."""

    number: int
    name: str
    bucket: str

    @property
    def fatal(self) -> bool:
        return self.bucket in ("RESTART_BM", "RESET_GPU", "WORKFLOW_XID_48", "WORKFLOW_NVLINK_ERR")

    @property
    def action(self) -> str:
        return _ACTIONS[self.bucket]

    def __str__(self) -> str:
        return f"XID {self.number} ({self.name})" if self.name else f"XID {self.number}"


def _parsed(line: str) -> Xid:
    number, bucket, name = line.split(" ", 2)
    return Xid(int(number), name, bucket)


XIDS = {xid.number: xid for xid in map(_parsed, _TABLE.splitlines())}
NAMES = {xid.name.lower(): xid.number for xid in XIDS.values()} | _ALSO


def xid(number: int) -> Xid:
    """What is known of a number."""
    return XIDS.get(number, Xid(number, "", ""))


def number_of(value: object) -> int:
    """The number that a file names, as a number or in words. Raises ValueError with the nearest name."""
    text = " ".join(str(value).split())
    if isinstance(value, int | str) and not isinstance(value, bool):
        if text.isascii() and text.isdigit() and 0 < int(text) <= HIGHEST:
            return int(text)
        if text.lower() in NAMES:
            return NAMES[text.lower()]
    hint = did_you_mean(text, NAMES)
    raise ValueError(
        f"expected an XID's number or name (such as 79 or `fell off the bus`), found {text!r}"
        + (f" ({hint})" if hint else f"; names are {', '.join(x.name for x in XIDS.values())}")
    )
