"""A simulated GPU fleet for any Kubernetes API: nodes, kubelets, Chaos Mesh, Argo CD, workloads' metrics.

It talks to the API as the real components do, so the same code runs on the sandbox's own API server and
on a real control plane.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from gameday.platform.errors import ApiError, WrongAnswer
from gameday.platform.kube import Kube
from gameday.platform.objects import Object
from gameday.sandbox.cache import Cache
from gameday.sandbox.facts import annotations_of
from gameday.sandbox.fleet import machines
from gameday.sandbox.fleet.argocd import Applications
from gameday.sandbox.fleet.chaos import ChaosMesh
from gameday.sandbox.fleet.gpu_health import GpuHealth
from gameday.sandbox.fleet.gpu_operator import GpuOperator, with_gpus
from gameday.sandbox.fleet.gpus import Gpus
from gameday.sandbox.fleet.host import Hosts
from gameday.sandbox.fleet.kubelet import Kubelets
from gameday.sandbox.fleet.kubelet_api import Command, KubeletApi
from gameday.sandbox.fleet.machines import Machines, MachineSets
from gameday.sandbox.fleet.network import Networks, operator
from gameday.sandbox.fleet.network.health import FabricHealth, with_fabric
from gameday.sandbox.fleet.network.tools import Tools
from gameday.sandbox.fleet.nodes import Heartbeats, node_objects
from gameday.sandbox.fleet.rollouts import Rollouts
from gameday.sandbox.fleet.slurm import Slurm
from gameday.sandbox.fleet.systemd import Systemd
from gameday.sandbox.fleet.workloads import Meter
from gameday.sandbox.manifests import CHAOS, MADE, chaos_crds, read
from gameday.sandbox.recorder import Recorder

FOLLOWED = {
    "Node": "v1",
    "Pod": "v1",
    "ConfigMap": "v1",
    "ReplicaSet": "apps/v1",
    "Rollout": "argoproj.io/v1alpha1",
    "Deployment": "apps/v1",
    "Job": "batch/v1",
    "PodDisruptionBudget": "policy/v1",
    "Application": "argoproj.io/v1alpha1",
    "VirtualService": "networking.istio.io/v1",
    "Machine": machines.API,
    "MachineSet": machines.API,
    "SriovNetworkNodeState": "sriovnetwork.openshift.io/v1",
    **dict.fromkeys([*CHAOS, "Schedule", "Workflow", *MADE], "chaos-mesh.org/v1alpha1"),
}
SERVED_WITHIN = 60.0  # seconds; an API server puts a new CRD into its discovery in its own time, busy or not
# Controllers whose place a real one can take.
SIMULATED = ("argocd", "rollouts", "chaos-mesh")


@dataclass(frozen=True)
class FleetOptions:
    """How large the fleet is and how it behaves. Times are in seconds."""

    gpu_nodes: int = 8
    cpu_nodes: int = 2
    heartbeat: float = 10.0  # between a node's Lease renewals
    longest_stop: float = 30.0  # a pod that takes its time to end gets no more than this
    workloads: bool = True  # install the platform's workloads, not only the nodes
    without: frozenset[str] = frozenset()  # of SIMULATED: the cluster has the real ones


@dataclass
class Fleet:
    """The fleet's parts, for whoever serves their metrics or switches them off."""

    cache: Cache
    recorder: Recorder
    options: FleetOptions
    kubelets: Kubelets = field(init=False)
    heartbeats: Heartbeats = field(init=False)
    chaos: ChaosMesh = field(init=False)
    networks: Networks = field(default_factory=Networks)
    meter: Meter = field(init=False)
    gpus: Gpus = field(init=False)
    hosts: Hosts = field(default_factory=Hosts)  # what programs on nodes find there
    programs: dict[str, Command] = field(default_factory=dict)  # what containers answer to exec, by argv[0]
    kubelet_api: KubeletApi = field(init=False)
    slurm: Slurm = field(init=False)
    address: str = ""  # of the web side, where the nodes' GPUd is

    def __post_init__(self) -> None:
        self.gpus = Gpus(self.cache)
        self.kubelets = Kubelets(self.cache, self.recorder, self.options.longest_stop, self.hosts)
        self.kubelet_api = KubeletApi(self.cache, self.kubelets.works, self.kubelets.log, self.programs)
        self.slurm = Slurm(self.cache, self.recorder, self.kubelets.lives)
        self.programs["scontrol"] = self.slurm.scontrol
        self.heartbeats = Heartbeats(self.cache, self.recorder, self.options.heartbeat)
        self.chaos = ChaosMesh(self.cache, self.recorder, self.kubelets.restart)
        Systemd(self.kubelets.works, self.stop_kubelet).register(self.hosts)
        self.meter = Meter(self.cache, self.kubelets, self.networks, self.gpus)
        Tools(self.networks, self._annotation).register(self.hosts)
        self.gpus.register(self.hosts, self.programs)

    def stop_kubelet(self, node: str, stopped: bool) -> None:
        """Let a node's kubelet stop, or run again; its containers run on."""
        self.kubelets.stop(node, stopped=stopped)
        self.heartbeats.switch(node, on=not stopped and self.kubelets.lives(node))

    def switch_node(self, name: str, *, on: bool) -> None:
        """Take a node's power away, or give it back."""
        self.heartbeats.switch(name, on=on)
        self.kubelets.switch(name, on=on)
        self.meter.touch()

    def _annotation(self, node: str, key: str) -> str:
        found = self.cache.get("Node", ("", node))
        return annotations_of(found).get(key, "") if found else ""

    async def install(self) -> None:
        """Create what isn't there: CRDs, nodes, workloads."""
        options = self.options
        await create_all(self.cache.kube, [*chaos_crds(), *read("argocd"), *read("istio")])
        port = self.kubelet_api.port
        nodes = node_objects(options.gpu_nodes, options.cpu_nodes, options.heartbeat, port)
        await create_all(self.cache.kube, [with_fabric(with_gpus(n)) for n in nodes])
        if options.workloads:
            platform = [*read("platform"), *read("machines"), *read("slurm")]
            await create_all(self.cache.kube, [o for o in platform if o["kind"] == "Namespace"])
            await create_all(self.cache.kube, operator.objects(nodes))
            await create_all(self.cache.kube, [o for o in platform if o["kind"] != "Namespace"])
            await create_all(self.cache.kube, read("applications"))

    async def run(self) -> None:
        """Keep the fleet alive until cancelled. Somebody else keeps `cache` following FOLLOWED."""
        await self.cache.synced(["Node", "Pod"])
        async with asyncio.TaskGroup() as group:
            group.create_task(self.kubelets.run())
            group.create_task(self.heartbeats.run())
            group.create_task(self.slurm.run())
            if self.options.workloads:
                group.create_task(MachineSets(self.cache, self.recorder).run())
                heartbeat, port = self.options.heartbeat, self.kubelet_api.port
                group.create_task(Machines(self.cache, self.recorder, heartbeat, port).run())
            if "chaos-mesh" not in self.options.without:
                group.create_task(self.chaos.run())
            if "argocd" not in self.options.without:
                group.create_task(Applications(self.cache, self.recorder).run())
            if "rollouts" not in self.options.without:
                group.create_task(Rollouts(self.cache, self.recorder).run())
            group.create_task(GpuOperator(self.cache, self.gpus).run())
            group.create_task(GpuHealth(self.cache, self.recorder, self.gpus).run())
            group.create_task(FabricHealth(self.cache, self.recorder, self.networks).run())
            group.create_task(operator.Operator(self.cache, self.networks).run())
            group.create_task(operator.Multus(self.cache, self.networks).run())


async def create_all(kube: Kube, objects: list[Object]) -> None:
    """Create objects side by side; one that is already there stays as it is."""
    limit = asyncio.Semaphore(32)
    deadline = asyncio.get_running_loop().time() + SERVED_WITHIN

    async def one(obj: Object) -> None:
        async with limit:
            while True:
                try:
                    await kube.create(obj)
                    return
                except ApiError as error:
                    if error.reason == "AlreadyExists":
                        return
                    if error.status != 404 or asyncio.get_running_loop().time() > deadline:
                        raise
                except WrongAnswer:  # its kind came to be served in the middle of the request
                    if asyncio.get_running_loop().time() > deadline:
                        raise
                await asyncio.sleep(0.1)

    await asyncio.gather(*(one(o) for o in objects))
