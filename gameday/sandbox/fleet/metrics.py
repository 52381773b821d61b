"""The fleet's metrics pages, one for each exporter that a real platform has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from gameday.platform.objects import Object, condition, is_finished
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import gpus, labels_of
from gameday.sandbox.fleet.exposition import Family, line_of
from gameday.sandbox.fleet.gpus import IDLE, Card
from gameday.sandbox.fleet.network import exporter
from gameday.sandbox.fleet.nodes import MODEL, is_simulated
from gameday.sandbox.fleet.state import INFERENCE, TRAINER, pods_of, serves
from gameday.sandbox.fleet.workloads import BOUNDS, HISTORY, Meter

STATES = ("true", "false", "unknown")
DCGM = {  # by field number: the metric's name and help text, as dcgm-exporter's
    203: ("DCGM_FI_DEV_GPU_UTIL", "GPU utilization (in %)."),
    155: ("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W)."),
    150: ("DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C)."),
    252: ("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB)."),
    160: ("DCGM_FI_DEV_POWER_MGMT_LIMIT", "Power limit (in W)."),
    100: ("DCGM_FI_DEV_SM_CLOCK", "SM clock frequency (in MHz)."),
    230: ("DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered."),
}
NAMESPACES = ("inference", "training", "platform")  # whose pods are told one by one
FIRST_SCRAPE = 6.0  # seconds from here: Prometheus learns its targets 5 s after its start
WORKLOADS = ("inference-gateway", "training", "job-queue-controller")  # jobs with a past
_ROUTE = {  # of the requests from the gateway to inference, as Istio labels them
    "source_workload": "gateway",
    "source_workload_namespace": "platform",
    "destination_service": "inference.inference.svc.cluster.local",
    "destination_service_name": "inference",
    "destination_service_namespace": "inference",
    "destination_workload": "inference",
    "destination_workload_namespace": "inference",
    "request_protocol": "http",
}
Page = Callable[[], Iterator[Family]]
PHASES = ("Pending", "Running", "Succeeded", "Failed", "Unknown")


class Pages:
    """Builds the pages from the cache and from the meter, which whoever serves them has brought up to now."""

    def __init__(
        self, cache: Cache, meter: Meter, lives: Callable[[str], bool], more: Mapping[str, Page]
    ) -> None:
        self._cache = cache
        self._meter = meter
        self._lives = lives
        self._more = more

    def jobs(self) -> dict[str, Page]:
        """By job name; all but the inference pods', which have a page each."""
        return {
            "kube-state-metrics": self._kube_state,
            "dcgm-exporter": self._dcgm,
            "node-exporter": self._node_exporter,
            "inference-gateway": self._gateway,
            "training": self._training,
            "job-queue-controller": self._queue,
            **self._more,
        }

    def inference_targets(self) -> list[Object]:
        """The pods that Prometheus scrapes: as its own discovery, ready or not."""
        return [p for p in pods_of(self._cache, INFERENCE) if not is_finished(p)]

    def inference_pod(self, name: str) -> Iterator[Family] | None:
        """One pod's page; None when nobody answers there."""
        pod = self._cache.get("Pod", (INFERENCE[0], name))
        if pod is None or not serves(pod, self._lives):
            return None
        text = "Requests that this replica answered."
        total = Family("inference_replica_requests_total", "counter", text)
        return iter([total.add(self._meter.by_pod.get(name, 0.0))])

    def history(self, target: str) -> str:
        """Samples of the workloads' steady state until the first scrape, as OpenMetrics, one a second."""
        jobs = self.jobs()
        lines = []
        end = time.time() + FIRST_SCRAPE
        for past in range(int(HISTORY), 0, -1):
            self._meter.advance(end - past)
            for job in WORKLOADS:
                labels = {"instance": target, "job": job}
                samples = (s for family in jobs[job]() for s in family.samples)
                lines += [f"{line_of((n, {**own, **labels}, v))} {end - past:.3f}" for n, own, v in samples]
        return "\n".join([*lines, "# EOF", ""])

    def _gateway(self) -> Iterator[Family]:
        meter = self._meter
        text = "From a request's arrival to its answer."
        family = Family("inference_request_duration_seconds", "histogram", text)
        family.histogram(BOUNDS, meter.latency.cumulative(), meter.latency.sum)
        total = Family("inference_requests_total", "counter", "Requests by status code.")
        for code, count in meter.codes.items():
            total.add(count, code=code)
        mesh = Family("istio_requests_total", "counter", "Requests that the proxies handled.")
        for (reporter, code, flags), count in meter.by_proxy.items():
            mesh.add(count, **_ROUTE, reporter=reporter, response_code=code, response_flags=flags)
        yield from (family, total, mesh)

    def _training(self) -> Iterator[Family]:
        meter = self._meter
        yield Family("training_samples_total", "counter", "Samples trained on.").add(meter.samples)
        yield Family(
            "training_step", "gauge", "The step that training is at; back to a checkpoint after a loss."
        ).add(float(int(meter.steps)))
        ready = sum(condition(p, "Ready").get("status") == "True" for p in pods_of(self._cache, TRAINER))
        yield Family("training_workers_ready", "gauge", "Workers that are Ready.").add(ready)

    def _queue(self) -> Iterator[Family]:
        meter = self._meter
        yield Family("job_queue_depth", "gauge", "Jobs that wait for admission.").add(round(meter.depth, 3))
        yield Family("job_queue_admitted_total", "counter", "Jobs admitted.").add(meter.admitted)

    def _node_exporter(self) -> Iterator[Family]:
        nodes = [n for n in self._cache.all("Node") if is_simulated(n) and gpus(n)]
        names = sorted(n["metadata"]["name"] for n in nodes)
        return exporter.families(self._meter.networks.of(name) for name in names if self._lives(name))

    # -- GPUs ----------------------------------------------------------------------------------

    def _dcgm(self) -> Iterator[Family]:
        """A GPU's own figures, and in their place what was injected into DCGM."""
        families = {number: Family(name, "gauge", text) for number, (name, text) in DCGM.items()}
        training, cards = self._meter.training > 0, self._meter.gpus
        for node in self._cache.all("Node"):
            name = node["metadata"]["name"]
            if not is_simulated(node) or not gpus(node) or not self._lives(name):
                continue
            holders = cards.holders(name)
            for index, card in enumerate(cards.cards(name)):
                holder = holders[index] if index < len(holders) else None
                labels = {"gpu": str(index), "UUID": f"GPU-{name}-{index}", "device": f"nvidia{index}"}
                labels |= {"modelName": MODEL, "node": name}
                if holder is not None:
                    labels |= {
                        k: holder["metadata"][v] for k, v in (("namespace", "namespace"), ("pod", "name"))
                    }
                values = _figures(card, _utilisation(holder, training), holder is not None) | card.fields
                for number, family in families.items():
                    family.add(values[number], **labels)
        yield from families.values()

    # -- the cluster's state -------------------------------------------------------------------

    def _kube_state(self) -> Iterator[Family]:
        yield from self._pods()
        yield from self._nodes()
        wanted = Family("kube_deployment_spec_replicas", "gauge", "Replicas asked for.")
        available = Family("kube_deployment_status_replicas_available", "gauge", "Replicas available.")
        for each in self._cache.all("Deployment"):
            labels = _named(each, "deployment")
            wanted.add(each["spec"].get("replicas", 1), **labels)
            available.add((each.get("status") or {}).get("availableReplicas", 0), **labels)
        yield from (wanted, available)
        allowed = "kube_poddisruptionbudget_status_pod_disruptions_allowed"
        family = Family(allowed, "gauge", "Disruptions allowed at the moment.")
        for each in self._cache.all("PodDisruptionBudget"):
            family.add(
                (each.get("status") or {}).get("disruptionsAllowed", 0), **_named(each, "poddisruptionbudget")
            )
        yield family

    def _pods(self) -> Iterator[Family]:
        ready = Family("kube_pod_status_ready", "gauge", "Whether a pod is Ready.")
        phase = Family("kube_pod_status_phase", "gauge", "The pod's phase.")
        for namespace in NAMESPACES:
            for pod in self._cache.all("Pod", namespace):
                labels = _named(pod, "pod") | {"node": pod["spec"].get("nodeName", "")}
                state = condition(pod, "Ready").get("status", "False").lower()
                for each in STATES:
                    ready.add(state == each, **labels, condition=each)
                now = (pod.get("status") or {}).get("phase", "Pending")
                for each in PHASES:
                    phase.add(now == each, **labels, phase=each)
        yield from (ready, phase)

    def _nodes(self) -> Iterator[Family]:
        cordoned = Family("kube_node_spec_unschedulable", "gauge", "Whether a node is cordoned.")
        conditions = Family("kube_node_status_condition", "gauge", "A node's conditions.")
        info = Family("kube_node_labels", "gauge", "A node's zone.")
        capacity = Family("kube_node_status_capacity", "gauge", "GPUs of a node.")
        allocatable = Family("kube_node_status_allocatable", "gauge", "GPUs of a node that are given out.")
        for node in self._cache.all("Node"):
            name = node["metadata"]["name"]
            cordoned.add(bool(node["spec"].get("unschedulable")), node=name)
            info.add(1, node=name, label_topology_kubernetes_io_zone=_zone(node))
            for family, part in ((capacity, "capacity"), (allocatable, "allocatable")):
                if count := (node.get("status") or {}).get(part, {}).get("nvidia.com/gpu"):
                    family.add(float(count), node=name, resource="nvidia_com_gpu", unit="integer")
            for entry in (node.get("status") or {}).get("conditions") or ():
                for each in STATES:
                    same = entry["status"].lower() == each
                    conditions.add(same, node=name, condition=entry["type"], status=each)
        yield from (cordoned, conditions, info, capacity, allocatable)


def _figures(card: Card, use: float, held: bool) -> dict[int, float]:
    """What a GPU reports, by DCGM's field numbers."""
    power = min(card.limit, IDLE + 5.6 * use)
    heat = 31 + 0.067 * (power - IDLE)
    return {
        203: use,
        155: power,
        150: heat,
        252: 68000 if held else 0,
        160: card.limit,
        100: card.clock,
        230: 0,
    }


def _utilisation(holder: Object | None, training: bool) -> float:
    if holder is None or condition(holder, "Ready").get("status") != "True":
        return 0.0
    if labels_of(holder).get("app") == TRAINER[1]:
        return 97.0 if training else 0.0
    return 55.0


def _zone(node: Object) -> str:
    return labels_of(node).get("topology.kubernetes.io/zone", "")


def _named(obj: Object, kind: str) -> dict[str, str]:
    return {"namespace": obj["metadata"]["namespace"], kind: obj["metadata"]["name"]}
