"""XIDs on the simulated GPUs: the driver's names, and after which of them a GPU is of no use.

From NVIDIA's XID catalogue for Ampere and newer GPUs (docs.nvidia.com/deploy/xid-errors, "Analyzing Xid
Errors with the Xid Catalog"). 123, which older guides count among the serious ones, is unused on these.
"""

from __future__ import annotations

# Those whose immediate action is RESET_GPU or RESTART_BM, or a workflow that begins so (48, 74).
_SERIOUS = {
    46: "GPU stopped processing",
    48: "Double Bit ECC Error",
    62: "Internal micro-controller halt",
    64: "GPU memory remapping failure",
    74: "NVLink Error",
    79: "GPU has fallen off the bus",
    95: "Uncontained memory error",
    109: "Context Switch Timeout Error",
    110: "Security Fault Error",
    119: "GSP RPC Timeout",
    120: "GSP Error",
    136: "Link Training Failed",
    140: "ECC Unrecovered Error",
    143: "GPU Initialization Error",
    155: "NVLINK: SW Defined Error",
    156: "Resource Retirement Event",
    158: "GPU Fatal Timeout",
}
_OTHERS = {
    13: "Graphics Engine Exception",
    31: "GPU memory page fault",
    43: "GPU stopped processing",
    45: "Preemptive cleanup, due to previous errors",
    63: "GPU memory remapping event",
    69: "Graphics Engine class error",
    92: "High single-bit ECC error rate",
    94: "Contained memory error",
    154: "GPU Recovery Action Changed",
}


def is_serious(number: float) -> bool:
    """Whether the GPU can't be used until it is reset, or its node restarted."""
    return number in _SERIOUS


def name_of(number: int) -> str:
    """The catalogue's description; "unknown" for what it lists as unused, or not at all."""
    return _SERIOUS.get(number) or _OTHERS.get(number) or "unknown"


def told(number: int) -> str:
    """An XID as a detector tells it."""
    return f"XID {number} ({name_of(number)})"
