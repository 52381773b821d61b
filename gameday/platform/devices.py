"""Which resources and devices are GPUs, how many a node has, and how many a pod holds: nobody else decides.

A resource is counted as the scheduler gives it out. A MIG device (NVIDIA's "mixed" strategy, or AMD's
partitions) and a share of a GPU that several pods use count as one GPU each: a bound may then stop at fewer
GPUs than are meant, and never at more. Facts:

- NVIDIA's device plugin names `nvidia.com/gpu`, `nvidia.com/mig-1g.10gb` and so on, and adds `.shared` to a
  resource that is renamed for time-slicing or MPS; KubeVirt's gives each model a name of its own.
- `nvidia.com/` and `amd.com/` are prefixes of network devices too (both vendors' network operators), and HAMi
  counts MiB and percent under `nvidia.com/`. A name of these vendors that is not known counts as GPUs.
- Intel's plugin names `gpu.intel.com/i915` and `/xe`; its monitoring, memory, tile and millicore resources
  come beside these. Habana's names `habana.ai/gaudi`.
- Other schedulers and vendors name GPUs as they like: Volcano `volcano.sh/vgpu-number`, nos
  `nos.nebuly.com/gpu-10gb`, MetaX `metax-tech.com/sgpu`. A name with "gpu" in it counts. A measure of a share
  (`volcano.sh/vgpu-memory`, `aliyun.com/gpu-mem`) is one GPU, where a pod asks for no other of them.
- KAI and Run:ai write a share of a GPU into a pod's annotations, and no resource (KAI,
  pkg/common/constants/constants.go); a pod of their own holds the GPU.
- GPU feature discovery labels a node with its GPUs, which stays while the device plugin is gone.
"""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING

from gameday.experiment.quantity import parse_quantity
from gameday.platform.objects import Object, annotations_of, labels_of
from gameday.platform.resources import PODS

if TYPE_CHECKING:
    from gameday.platform.kube import Kube

COUNT = "nvidia.com/gpu.count"  # GPU feature discovery's label
_VENDORS = ("nvidia.com", "amd.com", "gpu.intel.com", "habana.ai")
_BESIDE = re.compile(  # what these vendors name that is no GPU: network devices, and measures of a share
    r"^(gpumem|gpucores|priority|millicores|memory\.max|tiles)|monitoring$|"
    r"^(?!gpu)(.*[^a-z])?(v?nics?|rdma|sriov\w*|hostdev|mlnx\w*|vfs?|pf\d*|sfs?|ib|ipoib|roce\w*|cx\d\w*|"
    r"bf\d\w*|bluefield\w*|rail\w*|eth\d*|ovs|switchdev|macvlan)([^a-z]|$)",
    re.IGNORECASE,
)
_ANYBODYS = re.compile(r"(^|[^a-z])[sv]?gpus?([^a-z]|$)", re.IGNORECASE)
_MEASURE = re.compile(r"gpu.*(mem|core|percent|milli|priority)|vcuda", re.IGNORECASE)
_SHARES = ("gpu-fraction", "gpu-memory")
_DEVICES = "gpu-fraction-num-devices"

# Drivers of dynamic resource allocation, by name, as gpu.nvidia.com, gpu.amd.com and gaudi.intel.com.
_DRIVER = re.compile(r"(^|[.-])(v?gpu|gaudi)([.-]|$)")
_NO_GPUS = re.compile(
    r"^compute-domain\.nvidia\.com$|(^|\.)dra\.(net|cpu|memory)$|^dra\.networking\.|\.dra\.networking\.|"
    r"^sriovnetwork\.|^(cpu|tpu|qat|nic)\."
)


def is_gpu(resource: str) -> bool:
    """Whether an extended resource counts GPUs, or parts and shares of them."""
    domain, slash, name = resource.rpartition("/")
    if not slash:
        return False
    if domain in _VENDORS:
        return not _BESIDE.search(name)
    return bool(_ANYBODYS.search(name)) and not _MEASURE.search(name)


def drives_gpus(driver: str) -> bool | None:
    """Whether the devices of a driver of dynamic resource allocation are GPUs; None: nobody knows."""
    if _NO_GPUS.search(driver):
        return False
    return True if _DRIVER.search(driver) else None


def gpus(obj: Object) -> int:
    """GPUs that a node has, or that a pod (or a pod template) asks for; those of claims come beside them."""
    if obj.get("kind") == "Node" or "capacity" in (obj.get("status") or {}):
        known = str(labels_of(obj).get(COUNT, ""))
        return max(allocatable_gpus(obj, "capacity"), int(known) if known.isdigit() else 0)
    wanted = requests(obj)
    asked = sum(math.ceil(amount) for name, amount in wanted.items() if is_gpu(name))
    if not asked and any(amount and "/" in name and _MEASURE.search(name) for name, amount in wanted.items()):
        asked = 1
    return asked + _shares(obj)


def _shares(pod: Object) -> int:
    said = annotations_of(pod)
    if not any(said.get(key) for key in _SHARES):
        return 0
    devices = str(said.get(_DEVICES) or "1")
    return int(devices) if devices.isdigit() else 1


def gpu_resources(node: Object, field: str = "allocatable") -> dict[str, int]:
    """GPUs and MIG devices that the scheduler may give out on a node (or its `capacity`), by resource."""
    resources = (node.get("status") or {}).get(field) or {}
    return {name: int(parse_quantity(str(amount))) for name, amount in resources.items() if is_gpu(name)}


def allocatable_gpus(node: Object, field: str = "allocatable") -> int:
    """As `gpu_resources`, all together."""
    return sum(gpu_resources(node, field).values())


def requests(pod: Object) -> dict[str, float]:
    """What the scheduler reserves for a pod: its containers' requests in sum, or one init container's.

    Sidecars (init containers that restart) go on beside the containers, and beside the init containers
    after them (k8s.io/component-helpers/resource/helpers.go, PodRequests).
    """
    spec = pod.get("spec") or {}
    sidecars: dict[str, float] = {}
    most: dict[str, float] = {}
    for container in spec.get("initContainers") or ():
        asked = _asked(container)
        if container.get("restartPolicy") == "Always":
            sidecars, asked = _sum(sidecars, asked), {}
        most = _most(most, _sum(sidecars, asked))
    lasting = _sum(sidecars, *map(_asked, spec.get("containers") or ()))
    return _sum(_most(most, lasting), amounts(spec.get("overhead") or {}))


def amounts(quantities: Object) -> dict[str, float]:
    """Quantities as numbers, by resource."""
    return {name: parse_quantity(str(quantity)) for name, quantity in quantities.items()}


def _asked(container: Object) -> dict[str, float]:
    """A container's requests; where it names a limit alone, that is what it requests."""
    resources = container.get("resources") or {}
    return amounts((resources.get("limits") or {}) | (resources.get("requests") or {}))


def _sum(*parts: dict[str, float]) -> dict[str, float]:
    return {name: sum(p.get(name, 0) for p in parts) for name in dict.fromkeys(n for p in parts for n in p)}


def _most(one: dict[str, float], other: dict[str, float]) -> dict[str, float]:
    return {name: max(one.get(name, 0), other.get(name, 0)) for name in one | other}


async def pods_on(kube: Kube, node: str) -> list[Object]:
    """The pods of one node that are not going away, in all namespaces."""
    found = await kube.list(PODS, fields={"spec.nodeName": node, "status.phase": "Running"})
    return [p for p in found if "deletionTimestamp" not in p["metadata"]]
