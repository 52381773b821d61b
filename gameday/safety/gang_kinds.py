"""How a pod says that it belongs to a gang, and what the gang's controller does when members end.

Facts, by system:
- JobSet 0.11 (pkg/controllers/failure_policy.go) makes all Jobs anew when one fails, up to
  `failurePolicy.maxRestarts` times, by `status.restartsCountTowardsMax`: restarts by a rule that ignores the
  maximum are in `status.restarts` alone. A TrainJob (Kubeflow trainer 2) is a JobSet that it owns.
- Kueue 0.17 (pkg/controller/tas/node_controller.go) looks for another node for a workload with
  topology-aware scheduling when one of its nodes is tainted (a cordon is a taint), not Ready, or gone, and
  its pods there have ended: while they run, a taint alone changes nothing. For a second node, or where no
  other is found, the whole workload is evicted and queued again. Pods of plain groups carry
  `kueue.x-k8s.io/pod-group-name`.
- LeaderWorkerSet (pkg/controllers/pod_controller.go) deletes the leader, and with it the whole group, when a
  pod of the group is deleted or one of its containers restarts, unless `restartPolicy` is None; with
  RecreateGroupAfterStart not while a pod of the group is pending.
- KubeRay (controllers/ray/raycluster_controller.go) makes deleted pods anew, and deletes what is left of a
  replica with several hosts. Without fault tolerance of the GCS the head takes the cluster's state with it.
- Volcano: annotation `scheduling.k8s.io/group-name` (or `scheduling.volcano.sh/group-name`) on pods, label
  `volcano.sh/job-name` on those of its own Jobs, whose `policies` say what follows PodEvicted (which is any
  deletion) and PodFailed (docs/user-guide/how_to_use_job_policy.md); without one the pod is made anew.
- KAI: annotation `pod-group-name`; a group below its `minMember` for `stalenessGracePeriod`, 60 s unless set,
  is evicted as a whole (pkg/scheduler/actions/stalegangeviction).
- A PodGroup of the scheduler plugins (label `scheduling.x-k8s.io/pod-group`), of Volcano, or of Kubernetes
  itself (1.36, `spec.schedulingGroup`) starts no pods below its minimum; those that run go on.
- Kubernetes' own Job counts a pod that is evicted as failed, unless a rule of its `podFailurePolicy` ignores
  the condition DisruptionTarget; past `backoffLimit` it fails, and its other pods are ended. Ten seconds
  after a first failure it makes a pod anew, and each time twice as long (seen on its controller, 1.36).
- Kubeflow's training operator and MPI operator label pods `training.kubeflow.org/job-name`; a deleted pod is
  made anew, and a worker that the kubelet evicted makes an MPIJob fail.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from gameday.experiment.text import plural
from gameday.platform.jobs import (
    at_end,
    backoff_limit,
    past_failed_indexes,
    past_index_limit,
    past_limit,
    restarts_left,
)
from gameday.platform.objects import Object, Ref, controller, marks_of

Follows = Callable[[Object, list[Object]], str]
# The last one is Kueue's own, on pods whose queue has no flavor without a topology.
TAS = tuple(f"kueue.x-k8s.io/podset-{how}-topology" for how in ("required", "preferred", "unconstrained"))
JOBSET = "jobset.sigs.k8s.io/jobset-name"
OPERATOR = "training.kubeflow.org/operator-name"
NATIVE = "spec.schedulingGroup"
_EVERY = "*"  # any event, in a policy of Volcano's


@dataclass(frozen=True)
class Mark:
    """One way in which a pod says that it belongs to a group: a label or an annotation, and the group's kind.

    `system` is added to the group's name where several systems have that kind; `part` is the label that tells
    the gangs of one object apart. With `unless` on it as well, another mark says of a pod all that there is.
    """

    key: str
    api_version: str
    kind: str
    follows: Follows
    system: str = ""
    part: str = ""
    unless: str = ""

    def group(self, pod: Object) -> Ref | None:
        """The group that a pod belongs to by this mark."""
        name = said(pod, self.key)
        if not name or (self.unless and said(pod, self.unless)):
            return None
        version, kind = self.api_version, self.kind
        if self.key == "training.kubeflow.org/job-name":
            version, kind = _kubeflow(pod)
        return Ref(version, kind, name, pod["metadata"]["namespace"])


def kinds() -> set[tuple[str, str]]:
    """API version and kind of every group, and of what makes such groups."""
    kubeflow = {("kubeflow.org/v1", kind) for kind in _KUBEFLOW.values()}
    makers = {("trainer.kubeflow.org/v1alpha1", "TrainJob"), ("ray.io/v1", "RayJob")}
    return {(mark.api_version, mark.kind) for mark in MARKS} | kubeflow | makers


def said(pod: Object, key: str) -> str:
    """A pod's label or annotation, or the group that its spec names."""
    if key == NATIVE:
        return str(((pod.get("spec") or {}).get("schedulingGroup") or {}).get("podGroupName") or "")
    return str(marks_of(pod).get(key) or "")


def is_gang(group: Object | None) -> bool:
    """Whether a group is more than one pod's own: schedulers make a group of one for each pod without."""
    spec = (group or {}).get("spec") or {}
    if "parallelism" in spec:  # a Job
        return bool(spec["parallelism"] > 1)
    if "basic" in (spec.get("schedulingPolicy") or {}):
        return False
    return spec.get("minMember") != 1 or bool(spec.get("subGroups"))


def _jobset(group: Object, pods: list[Object]) -> str:
    spec, status = group.get("spec") or {}, group.get("status") or {}
    if not group:
        return "all of its Jobs are made anew, as often as its failurePolicy allows"
    most = (spec.get("failurePolicy") or {}).get("maxRestarts", 0)
    used = int(status.get("restartsCountTowardsMax") or 0)
    follows = "all are made anew" if restarts_left(group) > 0 else "it fails"
    if (spec.get("failurePolicy") or {}).get("rules"):
        follows += ", unless a rule of its failurePolicy says otherwise"
    train = controller(group) or {}
    owner = f"; {train['kind']} {train['name']} with it" if train.get("kind") == "TrainJob" else ""
    jobs = {said(pod, "jobset.sigs.k8s.io/replicatedjob-name") for pod in pods}
    limits = [_limit_of(j) for j in spec.get("replicatedJobs") or () if j.get("name") in jobs]
    limit = f" (backoffLimit {min(limits)})" if limits else ""
    return f"where a Job of it fails{limit}, {follows} ({used} of {most} restarts are used){owner}"


def _limit_of(replicated: Object) -> int:
    return backoff_limit((replicated.get("template") or {}).get("spec") or {})


def _job(group: Object, pods: list[Object]) -> str:
    if not group.get("spec"):
        return "each counts as a failure: past its backoffLimit it fails for good, and all of its pods end"
    spec, status = group.get("spec") or {}, group.get("status") or {}
    action = at_end(spec, evicted=True)
    if action == "Ignore":
        return "its podFailurePolicy ignores evictions: each is made anew"
    if action == "FailJob":
        return "its podFailurePolicy says that it fails for good at an eviction, and all of its pods end"
    if (each := spec.get("backoffLimitPerIndex")) is not None:
        failing = pods if action == "FailIndex" else [p for p in pods if past_index_limit(group, p, 1)]
        if past_failed_indexes(group, len(failing)):
            return f"it fails for good, and all of its pods end (maxFailedIndexes {spec['maxFailedIndexes']})"
        return f"each is made anew, until its index has failed {plural(each + 1, 'time')}"
    failed, limit = int(status.get("failed") or 0), backoff_limit(spec)
    if past_limit(group, len(pods)):
        return f"it fails for good, and all of its pods end ({failed} failures so far, backoffLimit {limit})"
    return f"each is made anew ({failed} of {limit} failures so far)"


def _kueue(group: Object, pods: list[Object]) -> str:
    if not any(said(pod, key) for pod in pods for key in TAS):
        return "its quota stays; where all its pods must be ready, Kueue evicts and queues it again"
    if len({pod["spec"].get("nodeName") for pod in pods}) > 1:
        return (
            "Kueue replaces one node of a workload at a time, and here are several: where its pods on a "
            "second one end before, the whole workload is evicted and queued again"
        )
    return (
        "Kueue looks for another node for it, once its pods on the tainted, cordoned or lost node have "
        "ended; where there is none, the whole workload is evicted and queued again"
    )


def _lws(group: Object, pods: list[Object]) -> str:
    template = (group.get("spec") or {}).get("leaderWorkerTemplate") or {}
    policy = str(template.get("restartPolicy") or "RecreateGroupOnPodRestart")
    size = template.get("size")
    if policy in ("None", "Default"):
        return f"only the pods that are lost are made anew (restartPolicy {policy})"
    whole = f"all {size} pods" if size else "all pods"
    return f"{whole} of the group are deleted and made anew (restartPolicy {policy})"


def _ray(group: Object, pods: list[Object]) -> str:
    spec, meta = group.get("spec") or {}, group.get("metadata") or {}
    tolerant = spec.get("gcsFaultToleranceOptions") or said({"metadata": meta}, "ray.io/ft-enabled") == "true"
    if any(said(pod, "ray.io/node-type") == "head" for pod in pods) and not tolerant:
        return (
            "its head is among them, and with the head all tasks and actors are lost: no GCS fault tolerance"
        )
    several = [
        g["groupName"] for g in spec.get("workerGroupSpecs") or () if int(g.get("numOfHosts") or 1) > 1
    ]
    if hit := sorted({g for pod in pods if (g := said(pod, "ray.io/group")) in several}):
        return f"KubeRay replaces all hosts of each replica that loses one (group {', '.join(hit)})"
    return "KubeRay makes the pods anew; Ray runs their tasks and actors again, as often as each allows"


def _volcano_job(group: Object, pods: list[Object]) -> str:
    spec = group.get("spec") or {}
    tasks = [
        t for t in spec.get("tasks") or () if t.get("name") in {said(p, "volcano.sh/task-spec") for p in pods}
    ]
    policies = [p for owner in (*tasks, spec) for p in owner.get("policies") or ()]
    for policy in policies:
        events = {policy.get("event"), *(policy.get("events") or ())}
        if events & {"PodEvicted", "PodFailed", _EVERY}:
            return f"its policy says {policy.get('action')} for pods that are deleted or fail"
    return "no policy of it says what follows: Volcano makes the pods anew, as the gang's minimum allows"


def _kai(group: Object, pods: list[Object]) -> str:
    spec = group.get("spec") or {}
    grace = spec.get("stalenessGracePeriod") or "60s, unless its scheduler says otherwise"
    least = spec.get("minMember") or "its minMember"
    return f"below {least} members for {grace}, KAI evicts all of its pods"


def _minimum(group: Object, pods: list[Object]) -> str:
    spec = group.get("spec") or {}
    gang = (spec.get("schedulingPolicy") or {}).get("gang") or {}
    least = spec.get("minMember") or gang.get("minCount") or "its minMember"
    return f"nothing of it starts below {least} members; what runs goes on"


def _training(group: Object, pods: list[Object]) -> str:
    if _kubeflow(pods[0])[1] == "MPIJob":
        return (
            "workers are made anew, but the launcher's run ends with them, and starts again as often as "
            "its backoffLimit allows; a worker that the kubelet evicts makes the job fail"
        )
    return (
        "the pods are made anew, but the others of the job wait for them or fail with them: it goes on from "
        "its last checkpoint, as restartPolicy and backoffLimit allow"
    )


_KUBEFLOW = {
    "pytorch": "PyTorchJob",
    "tf": "TFJob",
    "mpi": "MPIJob",
    "xgboost": "XGBoostJob",
    "jax": "JAXJob",
}


def _kubeflow(pod: Object) -> tuple[str, str]:
    """The API version and kind of the job that a pod of a Kubeflow operator is of."""
    owner = controller(pod) or {}
    if str(owner.get("apiVersion", "")).startswith("kubeflow.org/"):
        return str(owner["apiVersion"]), str(owner["kind"])
    operator = said(pod, OPERATOR)
    if operator == "mpi-operator":  # its launchers are owned by a Job
        return "kubeflow.org/v2beta1", "MPIJob"
    return "kubeflow.org/v1", _KUBEFLOW.get(operator.partition("job")[0], "PyTorchJob")


MARKS = (
    Mark(JOBSET, "jobset.x-k8s.io/v1alpha2", "JobSet", _jobset),
    Mark("batch.kubernetes.io/job-name", "batch/v1", "Job", _job, unless=JOBSET),
    Mark("kueue.x-k8s.io/workload", "kueue.x-k8s.io/v1beta2", "Workload", _kueue),
    Mark("kueue.x-k8s.io/pod-group-name", "kueue.x-k8s.io/v1beta2", "Workload", _kueue),
    Mark(
        "leaderworkerset.sigs.k8s.io/name",
        "leaderworkerset.x-k8s.io/v1",
        "LeaderWorkerSet",
        _lws,
        part="leaderworkerset.sigs.k8s.io/group-index",
    ),
    Mark("ray.io/cluster", "ray.io/v1", "RayCluster", _ray),
    Mark("training.kubeflow.org/job-name", "kubeflow.org/v1", "PyTorchJob", _training),
    Mark("volcano.sh/job-name", "batch.volcano.sh/v1alpha1", "Job", _volcano_job, "Volcano"),
    Mark("scheduling.k8s.io/group-name", "scheduling.volcano.sh/v1beta1", "PodGroup", _minimum, "Volcano"),
    Mark(
        "scheduling.volcano.sh/group-name", "scheduling.volcano.sh/v1beta1", "PodGroup", _minimum, "Volcano"
    ),
    Mark(
        "scheduling.x-k8s.io/pod-group",
        "scheduling.x-k8s.io/v1alpha1",
        "PodGroup",
        _minimum,
        "the scheduler plugins",
    ),
    Mark("pod-group-name", "scheduling.run.ai/v2alpha2", "PodGroup", _kai, "KAI"),
    Mark(NATIVE, "scheduling.k8s.io/v1alpha2", "PodGroup", _minimum, "Kubernetes"),
)
