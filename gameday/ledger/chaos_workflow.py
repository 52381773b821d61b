"""A Workflow of Chaos Mesh under the name that earlier versions recorded: their runs stay recoverable."""

from __future__ import annotations

from typing import ClassVar

from gameday.ledger.chaos_mesh import CreateChaos


class CreateWorkflow(CreateChaos):
    """As CreateChaos, in records that are there already."""

    kind: ClassVar[str] = "chaos-workflow"
