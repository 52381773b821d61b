"""Slurm's JSON, as slurmrestd and `scontrol --json` write it, and scontrol's text, as facts of model.py.

Until v0.0.38 states are texts (nodes' in lower case, with `state_flags` beside them); since v0.0.39 they are
lists that hold the flags too. The text of `scontrol show -o` has been the same for all of them.
Fields: https://slurm.schedmd.com/rest_api.html, and slurmrestd 22.05's own answers.
"""

from __future__ import annotations

import re
from typing import Any

from gameday.platform.slurm.model import Job, Node, Partition, expand, gpus_of, job_state, split_states

Json = dict[str, Any]


def node(data: Json) -> Node:
    states = {s.upper() for s in [*_list(data.get("state")), *_list(data.get("state_flags"))]}
    return Node(
        name=data["name"],
        states=frozenset(states),
        reason=data.get("reason") or "",
        partitions=tuple(_list(data.get("partitions"))),
        gpus=gpus_of(data.get("gres") or ""),
    )


def job(data: Json) -> Job:
    return Job(
        number=int(data["job_id"]),
        name=data.get("name") or "",
        state=job_state(_list(data.get("job_state"))),
        reason=_none(data.get("state_reason") or ""),
        nodes=expand(data.get("nodes") or ""),
        partition=data.get("partition") or "",
        restarts=int(data.get("restart_cnt") or 0),
        requeue=bool(data.get("requeue", True)),
        gpus=gpus_of(data.get("tres_alloc_str") or data.get("tres_req_str") or ""),
    )


def partition(data: Json) -> Partition:
    nodes = data.get("nodes") or ""
    state = data.get("state") or (data.get("partition") or {}).get("state")
    return Partition(
        name=data["name"],
        state=(_list(state) or ["UNKNOWN"])[0].upper(),
        nodes=expand(nodes if isinstance(nodes, str) else nodes.get("configured") or ""),
    )


def node_line(line: str) -> Node:
    """One line of `scontrol show nodes -o`. The reason has spaces, and comes late in the line."""
    reason = re.search(r" Reason=(.*?)(?: \[[^\[\]]*@[^\[\]]*\]|$)", line)
    return Node(
        name=_field(line, "NodeName"),
        states=split_states(_field(line, "State")),
        reason=_none(reason[1].strip()) if reason else "",
        partitions=tuple(p for p in _field(line, "Partitions").split(",") if p),
        gpus=gpus_of(_field(line, "Gres")),
    )


def job_line(line: str) -> Job:
    """One line of `scontrol show jobs -o`."""
    name = re.search(r"JobName=(.*?) UserId=", line)
    return Job(
        number=int(_field(line, "JobId")),
        name=name[1] if name else "",
        state=_field(line, "JobState").upper(),
        reason=_none(_field(line, "Reason")),
        nodes=expand(_field(line, "NodeList")),
        partition=_field(line, "Partition"),
        restarts=int(_field(line, "Restarts") or 0),
        requeue=_field(line, "Requeue") != "0",
        gpus=gpus_of(_field(line, "AllocTRES") or _field(line, "TRES")),
    )


def partition_line(line: str) -> Partition:
    """One line of `scontrol show partitions -o`."""
    return Partition(_field(line, "PartitionName"), _field(line, "State"), expand(_field(line, "Nodes")))


def _field(line: str, key: str) -> str:
    found = re.search(rf"(?:^| ){key}=(\S*)", line)
    return _none(found[1]) if found else ""


def _none(text: str) -> str:
    return "" if text in ("(null)", "None", "N/A") else text


def _list(value: Any) -> list[str]:
    if not value:
        return []
    return [str(v) for v in value] if isinstance(value, list) else str(value).split(",")
