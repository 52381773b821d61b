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
        name=_name(data),
        states=frozenset(states),
        reason=data.get("reason") or "",
        partitions=tuple(_list(data.get("partitions"))),
        gpus=gpus_of(data.get("gres") or ""),
        comment=data.get("comment") or "",
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
        gpus=_held(data),
    )


def partition(data: Json) -> Partition:
    nodes = data.get("nodes") or ""
    state = data.get("state") or (data.get("partition") or {}).get("state")
    return Partition(
        name=_name(data),
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
        comment=_field(line, "Comment"),
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
        gpus=_held({key: _field(line, name) for key, name in _IN_TEXT.items()}),
    )


# What a job says of its GPUs in JSON, and the same in text.
_IN_TEXT = {
    "tres_alloc_str": "AllocTRES",
    "tres_req_str": "TRES",
    "tres_per_job": "TresPerJob",
    "tres_per_node": "TresPerNode",
    "tres_per_task": "TresPerTask",
    "tres_per_socket": "TresPerSocket",
    "node_count": "NumNodes",
    "tasks": "NumTasks",
    "sockets_per_node": "Socks/Node",
}


def _held(data: Json) -> int:
    """A job's GPUs: as Slurm tracks them, else as its nodes gave them, else as they were asked for.

    A cluster tracks GPUs only where its AccountingStorageTRES names them (slurm.schedmd.com/tres.html): that
    a TRES text is without them says nothing.
    """
    tracked = gpus_of(data.get("tres_alloc_str") or "") or gpus_of(data.get("tres_req_str") or "")
    if given := tracked or sum(gpus_of(str(each)) for each in data.get("gres_detail") or ()):
        return given
    nodes, tasks = _most(data.get("node_count")), _most(data.get("tasks"))
    sockets = nodes * _most(data.get("sockets_per_node"))
    times = {"job": 1, "node": nodes, "task": tasks, "socket": sockets}
    return max(n * gpus_of(data.get(f"tres_per_{what}") or "") for what, n in times.items())


def _most(number: Any) -> int:
    """A count, which may be a range or not be set; at least 1."""
    value = number.get("number") if isinstance(number, dict) else number
    last = str(value or "").rpartition("-")[2]
    return max(1, int(last)) if last.isdigit() else 1


def partition_line(line: str) -> Partition:
    """One line of `scontrol show partitions -o`."""
    return Partition(_field(line, "PartitionName"), _field(line, "State"), expand(_field(line, "Nodes")))


def _name(data: Json) -> str:
    if not isinstance(name := data["name"], str):
        raise TypeError("a name that is no text")
    return name


def _field(line: str, key: str) -> str:
    found = re.search(rf"(?:^| ){key}=(\S*)", line)
    return _none(found[1]) if found else ""


def _none(text: str) -> str:
    return "" if text in ("(null)", "None", "N/A") else text


def _list(value: Any) -> list[str]:
    if not value:
        return []
    return [str(v) for v in value] if isinstance(value, list) else str(value).split(",")
