"""A Chaos Toolkit activity as a part of the experiment file, for the fault and the probe alike."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from gameday.experiment.model import Spec, Text


class ActivitySpec(Spec):
    """An activity as Chaos Toolkit's documentation writes it.

    Reference: https://chaostoolkit.org/reference/api/experiment/#action
    """

    type: Literal["action", "probe"] = Field("action", description="`action` or `probe`.")
    name: Text = Field(description="A name for it.")
    provider: dict[str, Any] = Field(
        description="How: `type` is python (module, func, arguments), process (path, arguments) or http "
        "(url, method, …), as in a Chaos Toolkit experiment."
    )
    configuration: dict[str, Any] = Field(
        {}, description="Values for `${name}` in arguments, as in a Chaos Toolkit experiment."
    )
    secrets: dict[str, Any] = Field(
        {}, description="Where secrets come from, as in a Chaos Toolkit experiment; best from env or vault."
    )

    @property
    def activity(self) -> dict[str, Any]:
        """The activity itself, as Chaos Toolkit takes it."""
        return {"type": self.type, "name": self.name, "provider": self.provider}

    @property
    def what(self) -> str:
        """The call, in a few words."""
        provider = self.provider
        match provider.get("type"):
            case "python":
                return f"{provider.get('module')}.{provider.get('func')}"
            case "process":
                return str(provider.get("path"))
        return f"{provider.get('method', 'GET')} {provider.get('url')}"
