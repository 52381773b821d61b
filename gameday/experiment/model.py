"""The experiment file as types. Faults and probes are not named here: the registry adds their keys."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from gameday.experiment.expect import Expectation
from gameday.experiment.problems import did_you_mean
from gameday.experiment.text import describe, shorten
from gameday.experiment.values import (
    Bound,
    DNSLabel,
    Duration,
    LabelSelector,
    ObjectName,
    Pick,
    PositiveDuration,
    PromQL,
    Regex,
    Text,
    at_least,
    picked,
)

__all__ = [
    "AbortIf",
    "BlastRadius",
    "Bound",
    "Check",
    "DNSLabel",
    "Duration",
    "ExpectAlert",
    "Expectation",
    "Experiment",
    "ExperimentSpec",
    "Keyed",
    "LabelSelector",
    "Metadata",
    "NodePick",
    "NodeProgram",
    "NodeSelector",
    "ObjectName",
    "Pick",
    "PositiveDuration",
    "Probe",
    "PromQL",
    "Recovery",
    "Regex",
    "Repeat",
    "ReportTo",
    "Scalar",
    "Spec",
    "Step",
    "Target",
    "Text",
]

Scalar = str | int | float | bool


class Spec(BaseModel):
    """Base of everything in the file: camelCase there, snake_case here, unknown keys refused, never changed.

    A class with a `shorthand` may be written as a bare text instead of a mapping: `prometheus: up` is
    `prometheus: {query: up}`.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True, defer_build=True
    )

    @classmethod
    def shorthand(cls) -> str | None:
        """The key that a bare text stands for, or None when only a mapping will do."""
        return None

    @model_validator(mode="before")
    @classmethod
    def _expand_shorthand(cls, data: Any) -> Any:
        key = cls.shorthand()
        return {key: data} if key and isinstance(data, str) else data

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = handler(core)
        if not (key := cls.shorthand()):
            return schema
        mapping = handler.resolve_ref_schema(schema)
        text = {"type": "string", "description": f"Short for `{{{key}: …}}`"}
        title = {name: mapping.pop(name) for name in ("title", "description") if name in mapping}
        full = dict(mapping)
        mapping.clear()
        mapping.update(**title, anyOf=[full, text])
        return schema


class Keyed(Spec):
    """Something that holds exactly one key out of a set, as a step holds exactly one fault."""

    keys: ClassVar[frozenset[str]] = frozenset()
    """The keys, as in the file. The registry's are added when the concrete class is made."""

    @property
    def kind(self) -> str:
        """The one key that is there."""
        return self._kinds()[0]

    @property
    def spec(self) -> Any:
        """What that key holds: for a fault or a probe the Spec of its class."""
        return getattr(self, self.field_of(self.kind))

    @classmethod
    def field_of(cls, key: str) -> str:
        return next(name for name, field in cls.model_fields.items() if (field.alias or name) == key)

    def _kinds(self) -> list[str]:
        fields = ((field.alias or name, name) for name, field in type(self).model_fields.items())
        return [key for key, name in fields if key in self.keys and getattr(self, name) is not None]

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        schema = super().__get_pydantic_json_schema__(core, handler)
        handler.resolve_ref_schema(schema)["oneOf"] = [{"required": [key]} for key in sorted(cls.keys)]
        return schema

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if len(kinds := self._kinds()) != 1:
            raise ValueError(f"expected exactly one of {sorted(self.keys)}, found {kinds or 'none'}")
        return self


class NodeSelector(Spec):
    """Nodes by their labels."""

    selector: LabelSelector = Field(description="A label selector for nodes.")


class NodePick(Spec):
    """Nodes by name or by labels, and how many of them. The choice is seeded, so a run can be repeated."""

    names: list[ObjectName] | None = Field(None, min_length=1, description="Nodes by name.")
    selector: LabelSelector | None = Field(None, description="Nodes by label selector.")
    pick: Pick = Field("all", description="How many of them: a number, a share such as 20%, or `all`.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.names is None) == (self.selector is None):
            raise ValueError("expected either `names` or `selector`")
        return self

    def count(self, total: int) -> int:
        """How many of `total` nodes found are meant."""
        return picked(self.pick, total)


class NodeProgram(Spec):
    """The short-lived privileged pod in which faults on a node's own hardware and services run."""

    image: Text = Field(
        "docker.io/library/python:3.13-slim", description="Any image with Python 3.9 or newer."
    )
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field(
        "IfNotPresent", description="As in any container."
    )
    image_pull_secrets: list[ObjectName] = Field([], description="Secrets of that namespace, as in any pod.")
    namespace: DNSLabel = Field("gameday", description="Where the pods run; it must admit privileged ones.")
    tolerations: list[dict[str, Any]] = Field(
        [{"operator": "Exists"}], description="As in any pod; all taints are tolerated when left out."
    )
    api_server: Text | None = Field(
        None,
        description="The API server's URL as the nodes reach it; the cluster's own address when left out.",
    )
    patience: PositiveDuration = Field(
        "15s",
        validate_default=True,
        description="How long a node does without the API server before it takes its fault back by itself.",
    )


class SlurmExec(Spec):
    """A pod that has `scontrol`: Slinky's or SUNK's controller or login pod."""

    namespace: DNSLabel = Field(description="The pod's namespace.")
    selector: LabelSelector = Field(description="The pod's labels; the first Ready one is used.")
    container: DNSLabel | None = Field(None, description="Its container; else the pod's first.")


class SlurmAccess(Spec):
    """How Slurm is reached. The first way reads, and the first one that can make a change makes it."""

    url: Text | None = Field(
        None,
        description="slurmrestd's address: http://…, https://… or unix:///path; its token is in $SLURM_JWT.",
    )
    exec: SlurmExec | None = Field(None, description="`scontrol` in a pod.")
    local: bool = Field(False, description="`scontrol` on this machine.")
    user: Text | None = Field(None, description="Whom the token is for; else the user that it names.")

    @model_validator(mode="after")
    def _some_way(self) -> Self:
        if not (self.url or self.exec or self.local):
            raise ValueError("expected at least one of `url`, `exec` and `local: true`")
        return self


class Target(Spec):
    """The cluster and the part of it that may be touched. Any other cluster is refused."""

    context: Regex | None = Field(
        None, description="Regular expression that the whole name of the kubeconfig context must match."
    )
    namespaces: list[DNSLabel] = Field([], description="Namespaces whose objects may be touched.")
    nodes: NodeSelector | None = Field(None, description="Nodes that may be touched.")
    node_program: NodeProgram = NodeProgram()
    slurm: SlurmAccess | None = Field(
        None, description="The Slurm cluster; --slurm and $GAMEDAY_SLURM_URL override its `url`."
    )


class BlastRadius(Spec):
    """The most that may be touched over the whole run.

    Nodes or pods that are left out may not be touched at all. A node's own pods come with it. GPUs that are
    left out are bounded by the nodes and pods that hold them.
    """

    nodes: Bound | None = Field(None, description="Nodes: a number, or a share of those in the target.")
    pods: Bound | None = Field(None, description="Pods: a number, or a share of those in the target.")
    gpus: Bound | None = Field(None, description="GPUs: a number, or a share of those in the target.")


class Check(Keyed):
    """What a probe and an abort condition have in common: a measurement and what it must be."""

    name: Text
    is_: Expectation = Field(
        alias="is", description="What must hold: `< 500ms`, `>= 90% of baseline`, `100ms..500ms`, `Healthy`."
    )
    match: Literal["all", "any"] = Field(
        "all", description="Whether all of several values must hold, or one is enough."
    )
    interval: Annotated[Duration, at_least(0.5)] = Field(
        "5s", validate_default=True, description="Time between measurements."
    )
    timeout: PositiveDuration = Field(
        "3s", validate_default=True, description="How long one measurement may take."
    )


def _during(value: object) -> Expectation | str:
    if value == "ignore" or isinstance(value, Expectation):
        return value if isinstance(value, Expectation) else "ignore"
    bound = Expectation.parse(value)
    if bound.word and did_you_mean(bound.word, ["ignore"]):  # else it would be a text to equal
        raise ValueError(f"expected a bound or `ignore`, found {describe(value)} (did you mean `ignore`?)")
    return bound


During = Annotated[
    Expectation | Literal["ignore"],
    PlainValidator(_during),
    WithJsonSchema(Expectation.json_schema | {"examples": ["< 2s", ">= 50% of baseline", "ignore"]}),
]


class Probe(Check):
    """One part of the steady state: how to measure it, and when it is healthy."""

    name: Text = Field(description="A unique name; reports use it.")
    during: During | None = Field(
        None,
        description="A looser bound while a fault is in; `ignore` looks only before and after; else `is`.",
    )
    within: Duration = Field(
        "0s",
        validate_default=True,
        description="While a fault is in, how soon it must mend itself: it may be broken for that long.",
    )

    @model_validator(mode="after")
    def _judged(self) -> Self:
        if self.within and self.during == "ignore":
            raise ValueError("`within` says how soon it must hold again, but `during: ignore` never asks")
        return self


class AbortIf(Check):
    """A condition that ends the run at once and restores everything."""

    name: Text = Field("", description="A name for reports; its text when left out.")
    for_: Duration = Field(
        "0s", validate_default=True, alias="for", description="How long it must hold without a break."
    )

    @model_validator(mode="before")
    @classmethod
    def _name_by_text(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "name" in data:
            return data
        asked = next((value for key, value in data.items() if key in cls.keys), "")
        if isinstance(asked, dict):
            asked = " ".join(str(value) for value in asked.values() if isinstance(value, Scalar))
        return {**data, "name": shorten(f"{asked} {data.get('is', '')}") or "abort"}


class ExpectAlert(Spec):
    """An alert that must fire once a fault is in: does the monitoring see what was broken?"""

    alert: Text = Field(description="The alert's name.")
    within: PositiveDuration = Field(description="How soon after the first fault is in.")
    labels: dict[str, str] = Field({}, description="Labels the alert must carry.")


class Repeat(Spec):
    """Steps, several times over."""

    times: int = Field(ge=1, le=1000, description="How often.")
    steps: list[Step] = Field(min_length=1, description="The steps, one after the other.")


class Step(Keyed):
    """One step of the method. It has exactly one fault, or one of parallel, sequence, wait and repeat."""

    keys = frozenset({"parallel", "sequence", "wait", "repeat"})

    name: Text = Field("", description="A unique name; its number and fault when left out.")
    for_: PositiveDuration | None = Field(None, alias="for", description="How long the fault stays in.")
    steady_between: bool | None = Field(
        None, description="Whether steady state must return after this step; else `steadyBetweenSteps`."
    )
    parallel: list[Self] | None = Field(None, min_length=1, description="Steps at the same time.")
    sequence: list[Self] | None = Field(None, min_length=1, description="Steps one after the other.")
    wait: PositiveDuration | None = Field(None, description="Do nothing for so long.")
    repeat: Repeat | None = Field(None, description="Steps, several times over.")

    @property
    def steps(self) -> tuple[Step, ...]:
        """The steps inside this one, once; empty for a fault or a wait."""
        return tuple(self.parallel or self.sequence or (self.repeat.steps if self.repeat else ()))

    @property
    def is_fault(self) -> bool:
        return self.kind not in Step.keys


class Recovery(Spec):
    """The objective for coming back."""

    within: PositiveDuration = Field(
        "5m",
        validate_default=True,
        description="Steady state must be back this soon after the last fault is out.",
    )


class ReportTo(Spec):
    """Who is told."""

    slack: Text | None = Field(None, description="A Slack channel, such as `#gpu-gamedays`.")


class ExperimentSpec(Spec):
    """What healthy means, what is broken, within what limits."""

    title: Text = Field(description="The hypothesis in one sentence.")
    owner: Text | None = Field(None, description="Who answers for it.")
    runbook: Text | None = Field(None, description="What responders follow: a path or a URL.")
    target: Target
    blast_radius: BlastRadius
    variables: dict[str, Scalar] = Field(
        {},
        description="Values for `{{ name }}` in any value; `--set name=value` and `--values FILE` override.",
    )
    steady_state: list[Probe] = Field(min_length=1, description="The probes that say what healthy means.")
    abort_if: list[AbortIf] = Field([], description="Conditions that end the run at once.")
    expect_alerts: list[ExpectAlert] = Field([], description="Alerts that must fire.")
    observe: list[PromQL] = Field([], description="Queries to chart in the report, without a bound.")
    method: list[Step] = Field(min_length=1, description="The steps, one after the other.")
    recovery: Recovery = Recovery()
    report: ReportTo = ReportTo()
    steady_between_steps: bool = Field(
        True, description="Whether steady state must return between steps, so that effects can be told apart."
    )


class Metadata(Spec):
    """As in any Kubernetes object."""

    name: DNSLabel = Field(description="Lowercase letters, digits and `-`, at most 63.")
    labels: dict[str, str] = Field({}, description="Labels, for finding and comparing runs.")
    annotations: dict[str, str] = Field({}, description="Notes for other tools.")


class Experiment(Spec):
    """One game day: what healthy means, what is broken, within what limits, and what must come back."""

    api_version: Literal["gameday.dev/v1alpha1"]
    kind: Literal["Experiment"]
    metadata: Metadata
    spec: ExperimentSpec
