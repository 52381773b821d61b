"""GPUd on the simulated nodes: its HTTP API, which tells of the node's kernel log, as the real one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from aiohttp import web

from gameday.sandbox.fleet import xids
from gameday.sandbox.fleet.gpus import Gpus, Line

XID_COMPONENT = "accelerator-nvidia-error-xid"
_OTHERS = ("accelerator-nvidia-ecc", "accelerator-nvidia-nvlink", "cpu", "disk", "kubelet", "memory")
PREFIX = "/gpud/{node}"


class Gpud:
    """Routes below /gpud/NODE, paths and fields as GPUd's."""

    def __init__(self, cards: Gpus) -> None:
        self._gpus = cards
        self._forgiven: dict[str, int] = {}  # node: lines that set-healthy has dealt with

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get(PREFIX + "/v1/states", self._states),
            web.get(PREFIX + "/v1/events", self._events),
            web.post(PREFIX + "/v1/health-states/set-healthy", self._set_healthy),
            web.post(PREFIX + "/inject-fault", self._inject),
        ]

    async def _states(self, request: web.Request) -> web.Response:
        node = request.match_info["node"]
        lines = self._gpus.lines(node)[self._forgiven.get(node, 0) :]
        held = next((li for li in reversed(lines) if xids.is_serious(li.xid) and not li.repaired), None)
        states = [_state(XID_COMPONENT, held), *(_state(name, None) for name in _OTHERS)]
        return web.json_response(states)

    async def _events(self, request: web.Request) -> web.Response:
        since = int(request.query.get("startTime", "0"))
        lines = [line for line in self._gpus.lines(request.match_info["node"]) if line.at >= since]
        told = [{"component": XID_COMPONENT, "events": [_event(line) for line in lines]}]
        return web.json_response([*told, *({"component": name, "events": []} for name in _OTHERS)])

    async def _set_healthy(self, request: web.Request) -> web.Response:
        names = request.query.get("components", "").split(",")
        if XID_COMPONENT in names:
            node = request.match_info["node"]
            self._forgiven[node] = len(self._gpus.lines(node))
            self._gpus.reset(node)  # whoever says so has looked at the GPU
        return web.json_response({"success": names})

    async def _inject(self, request: web.Request) -> web.Response:
        body: dict[str, Any] = await request.json()
        number = int((body.get("xid") or {}).get("id") or 0)
        if not number:
            said = {"code": "invalid argument", "message": "invalid request: no fault injection entry found"}
            return web.json_response(said, status=400)
        self._gpus.log_xid(request.match_info["node"], number)
        return web.json_response({"message": "fault injected"})


def _time(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _state(component: str, held: Line | None) -> dict[str, Any]:
    state = {"time": _time(held.at if held else 0), "name": component, "health": "Healthy"}
    if held is not None:
        state |= {"health": "Unhealthy", "reason": f"{xids.told(held.xid)} on GPU {held.gpu}"}
    return {"component": component, "states": [state]}


def _event(line: Line) -> dict[str, Any]:
    level = "Fatal" if xids.is_serious(line.xid) else "Warning"
    return {"time": _time(line.at), "name": "error_xid", "type": level, "message": line.text}
