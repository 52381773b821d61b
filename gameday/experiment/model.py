"""The experiment file as types. Faults and probes are not named here: the registry adds their keys."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    GetJsonSchemaHandler,
    PlainValidator,
    WithJsonSchema,
    field_validator,
    model_validator,
)
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

from gameday.experiment.expect import Expectation
from gameday.experiment.problems import did_you_mean
from gameday.experiment.text import describe, shorten
from gameday.experiment.values import (
    AlertMatchers,
    Bound,
    ClusterScoped,
    DNSLabel,
    Duration,
    HeaderName,
    HeaderValue,
    LabelSelector,
    Line,
    ObjectName,
    Pick,
    PositiveDuration,
    PrometheusLabel,
    PromQL,
    Regex,
    ServiceName,
    Text,
    Url,
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
    "Line",
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
    "Url",
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


class EndingSpec(Spec):
    """Options of a fault that ends pods."""

    force: bool = Field(
        False, description="Also end pods that nothing makes again, and delete claims that go with pods."
    )


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

    image: Line = Field(
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
    api_server: Url | None = Field(
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

    url: Line | None = Field(
        None,
        description="slurmrestd's address: http://…, https://… or unix:///path; its token is in $SLURM_JWT.",
    )
    exec: SlurmExec | None = Field(None, description="`scontrol` in a pod.")
    local: bool = Field(False, description="`scontrol` on this machine.")
    user: Line | None = Field(None, description="Whom the token is for; else the user that it names.")

    @model_validator(mode="after")
    def _some_way(self) -> Self:
        if not (self.url or self.exec or self.local):
            raise ValueError("expected at least one of `url`, `exec` and `local: true`")
        return self


class SecretSource(Spec):
    """The source of a secret's value: an environment variable or a file."""

    env: Text | None = Field(None, description="The environment variable that holds it.")
    file: Text | None = Field(None, description="The file that holds it; relative to the experiment's.")

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if (self.env is None) == (self.file is None):
            raise ValueError("expected either `env` or `file`")
        return self


class SecretVariable(Spec):
    """A value that is masked wherever it turns up, and is in no log and no record."""

    secret_from: SecretSource = Field(description="Where its value is.")


class PrometheusAccess(Spec):
    """Prometheus, or what speaks its API, and how it is reached. The command line's flags go before it."""

    url: Url | None = Field(None, description="Its address; --prometheus and its variable override it.")
    headers: dict[HeaderName, HeaderValue | SecretVariable] = Field(
        {},
        description="Headers of each request, as Mimir's `X-Scope-OrgID`: a text, or "
        "`{secretFrom: {env: NAME}}`, or `{secretFrom: {file: PATH}}`.",
    )
    token: SecretVariable | None = Field(
        None, description="A bearer token; read again when the server refuses it."
    )
    ca_file: Text | None = Field(
        None, description="Certificates of the authorities to believe, in place of the system's."
    )
    cert_file: Text | None = Field(None, description="A client certificate, in PEM.")
    key_file: Text | None = Field(None, description="Its key, unless `certFile` holds that too.")
    rules_url: Url | None = Field(
        None,
        description="Where alert rules are evaluated, if elsewhere: vmalert's or a ruler's address, "
        "whose /api/v1/rules and /api/v1/alerts are asked.",
    )

    metrics_ql: bool = Field(
        False,
        alias="metricsQL",
        description="Whether queries are VictoriaMetrics' MetricsQL, of which there is no check offline.",
    )

    @model_validator(mode="after")
    def _one_login(self) -> Self:
        if self.key_file is not None and self.cert_file is None:
            raise ValueError("`keyFile` is the key of `certFile`: name both")
        if self.token is not None and any(name.lower() == "authorization" for name in self.headers):
            raise ValueError("`token` is sent as the header Authorization: name one of the two")
        return self


class Target(Spec):
    """The cluster and the part of it that may be touched. Any other cluster is refused."""

    context: Regex | None = Field(
        None, description="Regular expression that the whole name of the kubeconfig context must match."
    )
    namespaces: list[DNSLabel] = Field([], description="Namespaces whose objects may be touched.")
    nodes: NodeSelector | None = Field(None, description="Nodes that may be touched.")
    node_program: NodeProgram = Field({}, validate_default=True)
    slurm: SlurmAccess | None = Field(
        None, description="The Slurm cluster; --slurm and $GAMEDAY_SLURM_URL override its `url`."
    )
    prometheus: PrometheusAccess | None = Field(
        None, description="The Prometheus that probes, alerts and charts ask."
    )
    allow_protected: list[ClusterScoped] = Field(
        [],
        description="Nodes and namespaces that are protected, and may be touched all the same: "
        "`Node/control-1`, `Namespace/kube-system`.",
    )


class BlastRadius(Spec):
    """The most that may be touched over the whole run.

    What is left out may not be touched at all; only the pods that a node loses come with it, unless `pods`
    is given, which bounds these as well. Nodes that are down already count as touched. What can't be counted
    is allowed by name.
    """

    nodes: Bound | None = Field(None, description="Nodes: a number, or a share of those in the target.")
    pods: Bound | None = Field(
        None, description="Pods: a number, or a share of those that run in the target."
    )
    gpus: Bound | None = Field(
        None, description="GPUs of nodes and pods: a number, or a share of those in the target."
    )
    services: list[ServiceName] = Field([], description="Services whose requests may fail or be delayed.")
    namespaces: list[DNSLabel] = Field([], description="Namespaces that may be refused new pods.")
    partitions: list[Text] = Field([], description="Slurm partitions that may start no jobs.")
    cluster_scoped: list[ClusterScoped] = Field(
        [], description="Objects of no namespace that may be changed, as `Kind/name`."
    )
    others: list[Text] = Field(
        [],
        description="Whatever else can't be counted, by the name that the plan gives it: activities of "
        "Chaos Toolkit, machines outside of the cluster, tasks of a Chaos Mesh workflow, devices that may be "
        "GPUs, and who else may remove or reboot a node.",
    )

    def allowed(self, kind: str) -> list[str]:
        """The names that are allowed for a kind of effect that is not counted."""
        return {
            "service": self.services,
            "namespace": self.namespaces,
            "partition": self.partitions,
            "clusterScoped": self.cluster_scoped,
            "other": self.others,
        }[kind]


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
    """A condition that ends the run at once and restores everything; so does one that sees nothing."""

    name: Text = Field("", description="A name for reports; its text when left out.")
    match: Literal["all", "any"] = Field(
        "any", description="Whether one of several values is enough, or all must hold."
    )
    for_: Duration = Field(
        "0s", validate_default=True, alias="for", description="How long it must hold without a break."
    )
    blind_for: PositiveDuration | None = Field(
        None,
        description="How long it may give no data, NaN or no answer before that ends the run too; "
        "else three times in a row.",
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

    alert: Line = Field(description="The alert's name.")
    within: PositiveDuration = Field(description="How soon after the first fault is in.")
    labels: dict[PrometheusLabel, str] = Field({}, description="Labels the alert must carry.")


class Repeat(Spec):
    """Steps, several times over."""

    times: int = Field(ge=1, le=1000, description="How often.")
    steps: list[Step] = Field(min_length=1, description="The steps, one after the other.")


class Step(Keyed):
    """One step of the method. It has exactly one fault, or one of parallel, sequence, wait and repeat."""

    keys = frozenset({"parallel", "sequence", "wait", "repeat"})

    name: Text = Field("", description="A unique name; its number and fault when left out.")
    for_: PositiveDuration | None = Field(None, alias="for", description="How long the fault stays in.")
    hold_when_ended: bool = Field(
        False,
        description="Whether the step takes all of its `for` where somebody else ends its fault before; else "
        "the step ends then, and the run has deviated.",
    )
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

    slack: Line | None = Field(None, description="A Slack channel, such as `#gpu-gamedays`.")


def _or_none(schema: dict[str, Any]) -> None:
    """`abortIf: none` in the JSON Schema."""
    items = {key: schema.pop(key) for key in ("type", "items") if key in schema}
    schema.pop("default", None)
    schema["anyOf"] = [{**items, "minItems": 1}, {"const": "none"}]


class NoGo(Spec):
    """Conditions that keep a run from beginning, even with an approved plan."""

    alerts: list[AlertMatchers] = Field(
        [],
        description='Matchers of alerts, as `severity="critical"`: a run does not begin while one fires.',
    )
    url: Url | None = Field(
        None, description="An address that must answer with 200 to 299: a change calendar's, say."
    )
    spare_capacity: bool = Field(
        False,
        description="Whether the other nodes must have room for the pods that are drained; else a warning.",
    )
    nvsentinel: ObjectName | None = Field(
        None,
        description="NVSentinel's namespace: its circuit breaker must be closed. Left out: `nvsentinel`, "
        "if it is there.",
    )
    rollouts: bool = Field(
        True, description="Whether an update under way among the targets' workloads keeps it from beginning."
    )


class Hook(Spec):
    """Somebody else who is asked or told: an address that gets a POST, or a command, with JSON."""

    url: Url | None = Field(None, description="An address that takes a POST.")
    command: list[Text] | None = Field(
        None, min_length=1, description="A program with its arguments; the JSON is its standard input."
    )
    timeout: PositiveDuration = Field("10s", validate_default=True, description="How long it may take.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if (self.url is None) == (self.command is None):
            raise ValueError("expected either `url` or `command`")
        return self

    def __str__(self) -> str:
        return self.url or (self.command or [""])[0]


class Hooks(Spec):
    """Who is asked before, and told after, a run and each of its faults. Before, any failure is a no."""

    before_run: list[Hook] = Field([], description="Asked before anything is touched.")
    before_step: list[Hook] = Field([], description="Asked before each fault goes in; a no ends the run.")
    after_step: list[Hook] = Field([], description="Told after each fault is out, unless the run aborts.")
    after_run: list[Hook] = Field([], description="Told when everything is put back.")


def _safe(url: str) -> str:
    """An address whose answers nobody on the way can change: HTTPS, or this machine."""
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return url
    if parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"):
        return url
    raise ValueError(f"expected an address with https://, found {url!r}")


SafeUrl = Annotated[Url, AfterValidator(_safe)]


class ChangeRequest(Spec):
    """A change in ServiceNow; its approvers are `servicenow:USER_NAME` in `from`."""

    url: SafeUrl = Field(description="The instance, as https://example.service-now.com.")
    change: str = Field(
        pattern=r"^[A-Z]{2,10}[0-9]{4,20}$", description="The change's number, as CHG0030001."
    )


Names = Annotated[list[Text], Field(min_length=1)]
ELSEWHERE = ("slack", "servicenow", "webhook")  # where people approve but in the cluster


def source_of(name: str) -> str:
    """Where a name of `from` is known: "" for the cluster."""
    source, sep, _ = name.partition(":")
    return source if sep and source in ELSEWHERE else ""


class Approvals(Spec):
    """Who must have approved a plan before it is run, and where they may do so besides `gameday approve`."""

    required: int = Field(ge=1, le=20, description="How many different people.")
    from_: list[Text | Names] = Field(
        [],
        alias="from",
        description="Who may: people, each by a name, or by a list of all names of one person. A name is "
        "that by which the API server knows them, or slack:USER_ID, servicenow:USER_NAME, webhook:NAME. "
        "Left out, anybody whom the API server knows.",
    )
    within: Duration = Field(
        0.0, description="How long a run waits for approvals; left out, they must be there when it begins."
    )
    slack: Text | None = Field(
        None,
        description="The channel where a button approves while the run waits: `slack:USER_ID` in `from`.",
    )
    service_now: ChangeRequest | None = Field(None, description="A change whose approvals count.")
    webhook: SafeUrl | None = Field(
        None, description="An address that says who approved: `webhook:NAME` in `from`."
    )

    @model_validator(mode="after")
    def _enough(self) -> Self:
        names = [name for person in self.people for name in person]
        if twice := next((n for n in names if names.count(n) > 1), ""):
            raise ValueError(f"`from` names {twice} twice")
        if self.from_ and len(self.from_) < self.required:
            raise ValueError(f"{self.required} approvals are required, but `from` names {len(self.from_)}")
        alone = {source_of(entry) for entry in self.from_ if isinstance(entry, str)}
        if self.required > 1 and self.from_ and len({source_of(name) for name in names}) > 1 and alone:
            raise ValueError(
                "one person may have a name in each of the places that `from` names, and could count twice: "
                "write each person as a list of all their names, as [alice@example.com, 'slack:U012ABCDEF']"
            )
        if not self.from_ and (self.slack or self.service_now or self.webhook):
            raise ValueError(
                "name in `from` who may: people have other names elsewhere, and could count twice"
            )
        if self.slack and not self.within:
            raise ValueError("a button in Slack is heard while a run waits: say for how long, in `within`")
        return self

    @property
    def people(self) -> list[tuple[str, ...]]:
        """Who may, each by all their names."""
        return [(entry,) if isinstance(entry, str) else tuple(entry) for entry in self.from_]


class ChaosToolkitRun(Spec):
    """How `chaos run` runs a native Chaos Toolkit experiment: its `runtime`, and its controls.

    Reference: https://chaostoolkit.org/reference/api/experiment/#runtime
    """

    hypothesis: Literal[
        "default", "before-method-only", "after-method-only", "during-method-only", "continuously"
    ] = Field("default", description="When the steady state is looked at: once before and once after, or …")
    rollbacks: Literal["default", "always", "never", "deviated"] | None = Field(
        None, description="When rollbacks run; however the run ends when left out."
    )
    experiment: dict[str, Any] = Field(
        {}, description="The native experiment, where it has `controls`: these hear of it."
    )

    @property
    def before(self) -> bool:
        """Whether the steady state must hold before anything is done."""
        return self.hypothesis in ("default", "before-method-only", "continuously")

    @property
    def during(self) -> bool:
        return self.hypothesis in ("during-method-only", "continuously")

    @property
    def after(self) -> bool:
        """Whether the steady state must hold once the method is done, before the rollbacks."""
        return self.hypothesis in ("default", "after-method-only", "continuously")


class ExperimentSpec(Spec):
    """What healthy means, what is broken, within what limits."""

    title: Text = Field(description="The hypothesis in one sentence.")
    owner: Text | None = Field(None, description="Who answers for it.")
    runbook: Text | None = Field(None, description="What responders follow: a path or a URL.")
    target: Target
    blast_radius: BlastRadius
    variables: dict[str, Scalar | SecretVariable] = Field(
        {},
        description="Values for `{{ name }}` in any value; `--set name=value` and `--values FILE` override. "
        "A secret is `{secretFrom: {env: NAME}}` or `{secretFrom: {file: PATH}}`.",
    )
    steady_state: list[Probe] = Field(min_length=1, description="The probes that say what healthy means.")
    abort_if: list[AbortIf] = Field(
        [],
        description="Conditions that end the run at once; `none` says that a person watches instead.",
        json_schema_extra=_or_none,
    )
    expect_alerts: list[ExpectAlert] = Field([], description="Alerts that must fire.")
    observe: list[PromQL] = Field([], description="Queries to chart in the report, without a bound.")
    method: list[Step] = Field(min_length=1, description="The steps, one after the other.")
    recovery: Recovery = Field({}, validate_default=True)
    report: ReportTo = Field({}, validate_default=True)
    no_go: NoGo = Field({}, validate_default=True)
    hooks: Hooks = Field({}, validate_default=True)
    approvals: Approvals | None = Field(None, description="Approvals of the plan; none when left out.")
    chaos_toolkit: ChaosToolkitRun | None = Field(
        None, description="As `chaos run` does; written where a native Chaos Toolkit experiment is read."
    )
    steady_between_steps: bool = Field(
        True, description="Whether steady state must return between steps, so that effects can be told apart."
    )
    max_duration: PositiveDuration = Field(
        "1h", validate_default=True, description="How long the run may take in all; then it aborts."
    )
    max_hold: PositiveDuration = Field(
        "30m", validate_default=True, description="The most that a step's `for` may be."
    )

    @field_validator("abort_if", mode="before")
    @classmethod
    def _none_on_purpose(cls, value: Any) -> Any:
        if value == []:
            raise ValueError("expected at least one condition, or `none` when a person watches instead")
        return [] if value == "none" else value

    @property
    def unwatched(self) -> bool:
        """Whether nothing but a person ends the run early, and the file does not say so."""
        return "abort_if" not in self.model_fields_set


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
