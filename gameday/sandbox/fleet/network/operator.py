"""Stand-ins for the SR-IOV operator, which tells of each node's hardware, and Multus, which hands out VFs."""

from __future__ import annotations

import json
from typing import Any

from gameday.platform.objects import Object, Ref, is_finished
from gameday.sandbox.cache import Cache, Key, key_of
from gameday.sandbox.facts import annotations_of, gpus
from gameday.sandbox.fleet.network.attachments import STATUS, vfs_of
from gameday.sandbox.fleet.network.hardware import GIGABIT, Link, Network, Networks
from gameday.sandbox.fleet.nodes import is_simulated
from gameday.sandbox.manifests import read
from gameday.sandbox.work import Work

NAMESPACE = "openshift-sriov-network-operator"
NETWORKS = "k8s.v1.cni.cncf.io/networks"  # on a pod: the networks that it wants, one interface for each
RESOURCE = "mlnx_rdma"


def objects(nodes: list[Object]) -> list[Object]:
    """The operator's objects: those of the manifest, and one for each GPU node."""
    return [*read("sriov"), *(_node_state(n["metadata"]["name"]) for n in nodes if gpus(n))]


class Operator:
    """Keeps each node's SriovNetworkNodeState true."""

    def __init__(self, cache: Cache, networks: Networks) -> None:
        self._cache, self._networks = cache, networks
        self._work: Work[str] = Work("sriov-network-config-daemon", self._reconcile)
        cache.listen("SriovNetworkNodeState", self._changed)
        networks.listen(self._work.add)

    async def run(self) -> None:
        for state in self._cache.all("SriovNetworkNodeState"):
            self._work.add(state["metadata"]["name"])
        await self._work.run()

    def _changed(self, new: Object | None, old: Object | None) -> None:
        if new is not None and new.get("status") != (old or {}).get("status", 0):
            self._work.add(new["metadata"]["name"])

    async def _reconcile(self, node: str) -> float | None:
        state = self._cache.get("SriovNetworkNodeState", (NAMESPACE, node))
        if state is None:
            return None
        status = _status(self._networks.of(node))
        if (state.get("status") or {}) != status:
            body = {"status": status}
            self._cache.put(await self._cache.kube.patch(Ref.of(state), body, "merge", subresource="status"))
        return None


class Multus:
    """Gives a pod of a simulated node a VF for each network that it asks for, and writes down which."""

    def __init__(self, cache: Cache, networks: Networks) -> None:
        self._cache, self._networks = cache, networks
        self._work: Work[Key] = Work("multus", self._reconcile, workers=1)  # so that no VF is given twice
        cache.listen("Pod", self._changed)

    async def run(self) -> None:
        for pod in self._cache.all("Pod"):
            self._changed(pod, None)
        await self._work.run()

    def _changed(self, new: Object | None, old: Object | None) -> None:
        if new is not None and NETWORKS in annotations_of(new) and STATUS not in annotations_of(new):
            self._work.add(key_of(new))

    async def _reconcile(self, key: Key) -> float | None:
        pod = self._cache.get("Pod", key)
        node = self._cache.get("Node", ("", (pod or {}).get("spec", {}).get("nodeName", "")))
        if pod is None or node is None or not is_simulated(node) or STATUS in annotations_of(pod):
            return None
        name = node["metadata"]["name"]
        taken = {pci for p in self._cache.pods_on(name) if not is_finished(p) for pci in vfs_of(p)}
        links = self._networks.of(name).links.values()
        free = [(link, vf) for link in links for vf in link.vfs if vf.pci not in taken]
        wanted = [w.strip() for w in annotations_of(pod)[NETWORKS].split(",")]
        if len(free) < len(wanted):
            return 0.5  # those of a pod that is still ending
        status: list[dict[str, Any]] = [
            {"name": "cluster-default", "interface": "eth0", "default": True, "dns": {}}
        ]
        for number, (network, (link, vf)) in enumerate(zip(wanted, free, strict=False), 1):
            pci = {"pci-address": vf.pci, "pf-pci-address": link.pci, "rdma-device": vf.rdma}
            full = network if "/" in network else f"{key[0]}/{network}"
            status.append(
                {"name": full, "interface": f"net{number}", "mac": vf.mac, "mtu": link.mtu, "dns": {}}
                | {"device-info": {"type": "pci", "version": "1.1.0", "pci": pci}}
            )
        body = {"metadata": {"annotations": {STATUS: json.dumps(status)}}}
        self._cache.put(await self._cache.kube.patch(Ref.of(pod), body, "merge"))
        return None


def _node_state(node: str) -> Object:
    links = [li for li in Networks().of(node).links.values() if li.vfs]
    interfaces = [
        {"name": li.name, "pciAddress": li.pci, "numVfs": len(li.vfs), "mtu": li.mtu, "linkType": "ETH"}
        | {"vfGroups": [_group(li)]}
        for li in links
    ]
    return {
        "apiVersion": "sriovnetwork.openshift.io/v1",
        "kind": "SriovNetworkNodeState",
        "metadata": {"name": node, "namespace": NAMESPACE},
        "spec": {"interfaces": interfaces},
    }


def _group(link: Link) -> dict[str, Any]:
    last = len(link.vfs) - 1
    group = {"resourceName": RESOURCE, "policyName": "mlnx-rdma", "vfRange": f"0-{last}", "isRdma": True}
    return group | {"deviceType": "netdevice", "mtu": link.mtu}


def _status(network: Network) -> Object:
    return {"syncStatus": "Succeeded", "interfaces": [_interface(li) for li in network.links.values()]}


def _interface(link: Link) -> Object:
    told: Object = {
        "name": link.name,
        "pciAddress": link.pci,
        "mac": link.mac,
        "driver": "mlx5_core",
        "vendor": "15b3",
        "deviceID": "1021" if link.vfs else "101d",
        "mtu": link.mtu,
        "linkSpeed": f"{link.speed * GIGABIT * 8 // 10**6} Mb/s" if link.up else "-1 Mb/s",
        "linkType": "ETH",
        "linkAdminState": "up" if link.up else "down",
        "eSwitchMode": "legacy",
    }
    if link.vfs:
        vfs = [
            {"vfID": vf.number, "pciAddress": vf.pci, "mac": vf.mac, "driver": "mlx5_core", "vendor": "15b3"}
            | {"deviceID": "101e", "mtu": link.mtu}
            for vf in link.vfs
        ]
        told |= {"numVfs": len(vfs), "totalvfs": 16, "Vfs": vfs}
    return told
