"""What leaves the Kubernetes client, byte for byte, and what it makes of answers that are none."""

from __future__ import annotations

import asyncio
import gzip
import json
import stat
import sys
import textwrap
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from gameday.platform import answers, credentials
from gameday.platform.errors import (
    ApiError,
    BadName,
    ConfigError,
    NoCredentials,
    NotServed,
    PlatformError,
    Unreachable,
    WrongAnswer,
    not_found,
)
from gameday.platform.following import follow
from gameday.platform.kube import Kube
from gameday.platform.objects import Object, Ref, Resource, field_selector, url_path
from gameday.platform.resources import CONFIG_MAPS, NODES, PODS
from tests.support.raw import Asked, RawServer, Respond, answer, raw_server

pytestmark = pytest.mark.fast
POD = Ref("v1", "Pod", "web-0", "inference")
WIDGET = Ref("example.com/v1", "Widget", "web-0", "inference")
WIDGETS = Resource("example.com/v1", "Widget", "widgets")
THERE: Object = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-0", "namespace": "inference", "uid": "1"},
}
HTML = b"<html><body>503 the load balancer is tired</body></html>"


def kubeconfig(folder: Path, url: str, **user: Any) -> Path:
    path = folder / "kubeconfig"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "here", "user": user or {"token": "secret"}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
    }
    path.write_text(json.dumps(document))
    return path


async def asked(
    folder: Path, respond: Respond, do: Callable[[Kube], Awaitable[object]]
) -> tuple[RawServer, object]:
    """The server, and what became of it: a result or a PlatformError."""
    async with raw_server(respond) as server, await Kube.connect(kubeconfig(folder, server.url)) as kube:
        kube.patience = 0.0
        try:
            return server, await do(kube)
        except PlatformError as error:
            return server, error


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "a/b", "a/../../../other/deployments/b", "a%2Fb", "%2e%2e", "a\nb", "a\x00b"],
)
async def test_a_name_that_is_no_segment_is_never_sent(name: str, tmp_path: Path) -> None:
    """Not even quoted: an API server decodes the path before it takes it apart."""
    for ref in (
        Ref("v1", "Pod", name, "inference"),
        Ref("v1", "Pod", "web-0", name),
        Ref("v1", "Node", name),
    ):
        for do in (
            lambda kube, ref=ref: kube.get(ref),
            lambda kube, ref=ref: kube.delete(ref),
            lambda kube, ref=ref: kube.patch(ref, []),
            lambda kube, ref=ref: kube.evict(ref),
        ):
            server, result = await asked(tmp_path, lambda _: answer(200, THERE), do)
            assert isinstance(result, BadName), (ref, result)
            assert not server.asked


@pytest.mark.parametrize("verb", ["create", "patch", "delete"])
async def test_no_change_is_sent_for_a_namespace_that_the_kind_is_not_in(verb: str, tmp_path: Path) -> None:
    """Allowed for the namespace, it would change the whole cluster. An owner is named so, and only read."""
    ref = Ref("v1", "Node", "gpu-0", "inference")
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "gpu-0"}}

    async def change(kube: Kube) -> object:
        if verb == "create":
            return await kube.create(node | {"metadata": {"name": "gpu-0", "namespace": "inference"}})
        return await (kube.delete(ref) if verb == "delete" else kube.patch(ref, []))

    server, result = await asked(tmp_path, lambda _: answer(200, node), change)
    assert isinstance(result, BadName), result
    assert not server.asked
    _, found = await asked(tmp_path, lambda _: answer(200, node), lambda kube: kube.get(ref))
    assert found == node


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("a b", "a%20b"),
        ("system:node", "system%3Anode"),
        ("a?b=c#d", "a%3Fb%3Dc%23d"),
        ("é", "%C3%A9"),
        ("a;b+c", "a%3Bb%2Bc"),
    ],
)
async def test_a_name_reaches_the_server_as_one_segment(name: str, sent: str, tmp_path: Path) -> None:
    there = {**THERE, "metadata": {"name": name, "namespace": "inference"}}
    server, found = await asked(
        tmp_path, lambda _: answer(200, there), lambda kube: kube.get(Ref("v1", "Pod", name, "inference"))
    )
    assert found == there
    assert [a.target for a in server.asked] == [f"/api/v1/namespaces/inference/pods/{sent}"]


def test_paths_of_groups() -> None:
    assert Resource("apps/v1", "Deployment", "deployments").path("a", "b", "scale") == (
        "/apis/apps/v1/namespaces/a/deployments/b/scale"
    )
    assert url_path("a", "b c") == "/a/b%20c"
    with pytest.raises(BadName):
        Resource("apps/v1/../x", "Deployment", "deployments").path("a", "b")
    with pytest.raises(BadName):
        Resource("v1", "Pod", "pods").path("a", "")  # would be the collection


async def test_selectors_are_values(tmp_path: Path) -> None:
    hostile = "gpu-0,spec.nodeName!=x\\="
    fields = {"spec.nodeName": hostile}
    assert field_selector(fields) == r"spec.nodeName=gpu-0\,spec.nodeName!\=x\\\="
    empty = {"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": []}
    server, _ = await asked(
        tmp_path, lambda _: answer(200, empty), lambda kube: kube.list(PODS, fields=fields)
    )
    assert server.asked[0].query == (
        "limit=500&fieldSelector=spec.nodeName%3Dgpu-0%5C%2Cspec.nodeName%21%5C%3Dx%5C%5C%5C%3D"
    )


OTHERS: list[Any] = [
    {**THERE, "metadata": {"name": "web-1", "namespace": "inference"}},
    {**THERE, "metadata": {"name": "web-0", "namespace": "training"}},
    {**THERE, "metadata": {"name": "web-0"}},
    {**THERE, "kind": "Secret"},
    {**THERE, "apiVersion": "v2"},
    {"kind": "Status", "apiVersion": "v1", "status": "Failure"},
    {"metadata": None},
    {},
    [],
    None,
    "pod",
    HTML,
    b"",
    b'{"apiVersion": "v1", "kind": "Pod", "metad',
]
CALLS: dict[str, Callable[[Kube], Awaitable[object]]] = {
    "get": lambda kube: kube.get(POD),
    "find": lambda kube: kube.find(POD),
    "patch": lambda kube: kube.patch(POD, []),
    "dry patch": lambda kube: kube.dry_patch(POD, []),
    "create": lambda kube: kube.create(THERE),
    "dry run": lambda kube: kube.dry_run(THERE),
    "delete": lambda kube: kube.delete(POD),
    "evict": lambda kube: kube.evict(POD),
    "list": lambda kube: kube.list(PODS, "inference", fields={"metadata.name": "web-0"}),
    "page": lambda kube: kube.page(PODS, "inference", limit=1),
    "allowed": lambda kube: kube.allowed({"verb": "get"}),
    "version": lambda kube: kube.version(),
    "discovery": lambda kube: kube.resource("example.com/v1", "Widget"),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("other", OTHERS, ids=lambda o: repr(o)[:50])
async def test_an_answer_to_another_question_is_an_error(call: str, other: Any, tmp_path: Path) -> None:
    _, result = await asked(tmp_path, lambda _: answer(200, other), CALLS[call])
    assert isinstance(result, WrongAnswer), result
    assert "\n" not in str(result)
    assert len(str(result)) < 700


@pytest.mark.parametrize("item", [*OTHERS[1:5], None, 7, {}], ids=repr)
async def test_a_list_of_other_things_is_an_error(item: Any, tmp_path: Path) -> None:
    page = {"kind": "PodList", "apiVersion": "v1", "metadata": {"resourceVersion": "1"}, "items": [item]}
    _, result = await asked(tmp_path, lambda _: answer(200, page), CALLS["list"])
    assert isinstance(result, WrongAnswer), result


@pytest.mark.parametrize("item", [*OTHERS[1:5], None, 7, {}], ids=repr)
async def test_a_watch_of_other_things_is_an_error(item: Any, tmp_path: Path) -> None:
    async def first(kube: Kube) -> object:
        return await anext(kube.watch(PODS, "inference", version="1"))

    event = json.dumps({"type": "MODIFIED", "object": item}).encode() + b"\n"
    _, result = await asked(tmp_path, lambda _: answer(200, event), first)
    assert isinstance(result, WrongAnswer), result


@pytest.mark.parametrize(
    "line", [HTML, b"[]", b'{"type": "MODIFIED"}', b'{"type": "BOOKMARK", "object": {}}']
)
async def test_a_watch_of_anything_else_is_an_error(line: bytes, tmp_path: Path) -> None:
    async def first(kube: Kube) -> object:
        return await anext(kube.watch(PODS, "inference", version="1"))

    _, result = await asked(tmp_path, lambda _: answer(200, line + b"\n"), first)
    assert isinstance(result, WrongAnswer), result


@pytest.mark.parametrize("status", [404, 409, 410])
@pytest.mark.parametrize("body", [HTML, {"error": "not found"}, b""], ids=repr)
async def test_only_an_api_server_says_that_an_object_is_gone(status: int, body: Any, tmp_path: Path) -> None:
    """Or what is still there would be taken for restored."""
    for call in ("find", "delete"):
        _, result = await asked(tmp_path, lambda _: answer(status, body), CALLS[call])
        assert isinstance(result, WrongAnswer), result


NOWHERE = answer(404, b"404 page not found\n")  # a path that an API server does not serve, or a proxy
ELSE = answer(404, {"kind": "Status", "code": 404, "message": 'kubernetes cluster "staging" not found'})


@pytest.mark.parametrize("call", ["discovery", "get", "find", "list", "delete", "create", "patch", "watch"])
@pytest.mark.parametrize("word", [NOWHERE, ELSE], ids=["no-such-path", "about-something-else"])
@pytest.mark.parametrize("listed", [True, False, None])
async def test_a_404_that_is_not_about_the_object(
    call: str, word: bytes, listed: bool | None, tmp_path: Path
) -> None:
    """An API server says so of what it does not list, and a proxy of all: nobody says "gone"."""
    group, version = ("example.com", "v1")
    calls: dict[str, Callable[[Kube], Awaitable[object]]] = {
        "discovery": lambda kube: kube.resource(WIDGET.api_version, "Widget"),
        "get": lambda kube: kube.get(WIDGET),
        "find": lambda kube: kube.find(WIDGET),
        "list": lambda kube: kube.list(WIDGETS, "inference"),
        "delete": lambda kube: kube.delete(WIDGET),
        "create": lambda kube: kube.create({**THERE, "apiVersion": f"{group}/{version}", "kind": "Widget"}),
        "patch": lambda kube: kube.patch(WIDGET, {}, "merge"),
        "watch": lambda kube: anext(kube.watch(WIDGETS, "inference", version="1")),
    }
    versions = [{"groupVersion": f"{group}/{version}", "version": version}] if listed else []
    groups = {"groups": [{"name": group, "versions": versions}]}
    kinds = {"resources": [{"name": "widgets", "kind": "Widget", "namespaced": True}]}
    looked = 0

    def respond(request: Asked) -> bytes:
        nonlocal looked
        if listed is not None and request.path == "/apis":
            return answer(200, groups)
        looked += request.path == f"/apis/{group}/{version}"
        if request.path == f"/apis/{group}/{version}" and (listed or looked == 1) and call != "discovery":
            return answer(200, kinds)  # of a kind that is found, and not served a moment later
        return word

    _, result = await asked(tmp_path, respond, calls[call])
    # A list and a watch know their path already.
    unserved = listed is False and not (call in ("list", "watch") and looked == 1)
    assert isinstance(result, NotServed if unserved else WrongAnswer), result


@pytest.mark.parametrize(
    ("details", "gone"),
    [
        ({"name": "web-0", "kind": "pods"}, True),
        ({"name": "inference", "kind": "namespaces"}, True),
        ({"name": "web-1", "kind": "pods"}, False),
        ({"name": "web-0", "kind": "configmaps"}, False),
        ({"name": "web-0", "kind": "pods", "group": "example.com"}, False),
        ({"name": "training", "kind": "namespaces"}, False),
    ],
)
async def test_a_status_names_what_is_gone(details: Object, gone: bool, tmp_path: Path) -> None:
    status = {"kind": "Status", "code": 404, "reason": "NotFound", "message": "not found", "details": details}
    _, found = await asked(tmp_path, lambda _: answer(404, status), CALLS["find"])
    assert found is None if gone else isinstance(found, WrongAnswer)
    _, deleted = await asked(tmp_path, lambda _: answer(404, status), CALLS["delete"])
    assert deleted is False if gone else isinstance(deleted, WrongAnswer)


@pytest.mark.parametrize("code", [403, 404, 408, 409, 410, 500, 504])
@pytest.mark.parametrize("reason", ["Forbidden", "NotFound"])
@pytest.mark.parametrize("call", ["patch", "delete", "create", "evict"])
async def test_a_webhook_denies_with_whatever_code(call: str, reason: str, code: int, tmp_path: Path) -> None:
    """A webhook's 404 may name the object, as that of an object which is gone: yet all is there."""
    said = 'admission webhook "freeze.example.com" denied the request: frozen'
    details = {"name": "web-0", "kind": "pods"}
    status = {"kind": "Status", "code": code, "reason": reason, "message": said, "details": details}
    server, result = await asked(tmp_path, lambda _: answer(code, status), CALLS[call])
    assert isinstance(result, ApiError), result
    assert not result.may_land
    assert not not_found(result)
    assert (len(server.asked), result.status) == (1, 403)
    assert "RBAC" not in str(result)


@pytest.mark.parametrize(
    "body", [[], ["x"], {"message": 7, "details": [], "reason": {}, "metadata": 1}, HTML], ids=repr
)
async def test_a_failure_in_another_form_is_a_failure_all_the_same(body: Any, tmp_path: Path) -> None:
    _, result = await asked(tmp_path, lambda _: answer(403, body), CALLS["get"])
    assert isinstance(result, ApiError), result


@pytest.mark.parametrize("call", CALLS)
async def test_a_redirect_is_not_followed(call: str, tmp_path: Path) -> None:
    async with raw_server(lambda _: answer(200, THERE)) as elsewhere:
        _, result = await asked(
            tmp_path, lambda a: answer(307, Location=elsewhere.url + a.target), CALLS[call]
        )
        assert isinstance(result, WrongAnswer), result
        assert not elsewhere.asked


async def test_a_command_is_not_run_where_a_redirect_points(tmp_path: Path) -> None:
    async with raw_server(lambda _: answer(200, THERE)) as elsewhere:
        _, result = await asked(
            tmp_path,
            lambda a: answer(302, Location=elsewhere.url + a.target),
            lambda kube: kube.exec(POD, "main", ["true"]),
        )
        assert isinstance(result, WrongAnswer), result
        assert not elsewhere.asked


async def test_a_command_is_sent_as_it_is(tmp_path: Path) -> None:
    command = ["sh -c", "a&command=b", "$(x)", "%2e", "ü#"]
    server, _ = await asked(tmp_path, lambda _: answer(400, {}), lambda kube: kube.exec(POD, "main", command))
    first = server.asked[0]
    assert first.path == "/api/v1/namespaces/inference/pods/web-0/exec"
    assert first.query == (
        "container=main&stdout=true&stderr=true"
        "&command=sh+-c&command=a%26command%3Db&command=%24%28x%29&command=%252e&command=%C3%BC%23"
    )


@pytest.mark.parametrize(
    "wait", ["nan", "inf", "-inf", "-5", "1e300", "99999999", "soon", "Wed, 21 Oct 2099 07:28:00 GMT"]
)
async def test_an_absurd_wish_to_wait_is_none(wait: str, tmp_path: Path) -> None:
    status = {"kind": "Status", "reason": "TooManyRequests"}
    _, result = await asked(tmp_path, lambda _: answer(429, status, Retry_After=wait), CALLS["get"])
    assert isinstance(result, ApiError)
    assert result.retry_after is None or 0 <= result.retry_after <= 60


@pytest.mark.parametrize("packed", [False, True])
async def test_a_huge_answer_is_not_read_to_its_end(
    packed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_BYTES", 100_000)
    page = {"metadata": {}, "items": [{"metadata": {"name": "x" * 1_000_000, "namespace": "inference"}}]}
    raw = json.dumps(page).encode()
    made = answer(200, gzip.compress(raw), Content_Encoding="gzip") if packed else answer(200, raw)
    _, result = await asked(tmp_path, lambda _: made, CALLS["get"])
    assert isinstance(result, WrongAnswer)
    server, result = await asked(tmp_path, lambda _: made, lambda kube: kube.list(PODS))
    assert isinstance(result, WrongAnswer)
    assert [a.query for a in server.asked][:3] == ["limit=500", "limit=250", "limit=125"]
    assert server.asked[-1].query == "limit=1"


async def test_a_list_whose_end_never_comes_nearer_ends(tmp_path: Path) -> None:
    gone = {"kind": "Status", "reason": "Expired", "code": 410, "metadata": {"continue": "again"}}
    first = {"metadata": {"continue": "more"}, "items": []}

    def respond(a: Asked) -> bytes:
        return answer(410, gone) if "continue" in a.query else answer(200, first)

    _, result = await asked(tmp_path, respond, lambda kube: kube.list(NODES))
    assert isinstance(result, ApiError)
    assert result.status == 410


# -- following --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("storm", ["ended", "expired", "refused", "nonsense"])
async def test_watches_that_end_at_once_are_not_asked_for_without_a_pause(storm: str, tmp_path: Path) -> None:
    listed = {"kind": "ConfigMapList", "metadata": {"resourceVersion": "1"}, "items": []}
    expired = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired"}}
    endings = {
        "ended": answer(200, b""),
        "expired": answer(200, expired),
        "refused": answer(500, {"kind": "Status", "code": 500}),
        "nonsense": answer(200, HTML),
    }

    async def some_time(kube: Kube) -> None:
        try:
            async with asyncio.timeout(1.5):
                async for _ in follow(kube, CONFIG_MAPS, "default"):
                    pass
        except TimeoutError:
            pass

    server, _ = await asked(
        tmp_path, lambda a: endings[storm] if "watch=1" in a.query else answer(200, listed), some_time
    )
    watches = [a for a in server.asked if "watch=1" in a.query]
    assert 1 <= len(watches) <= 5  # at 0, 0.2, 0.6 and 1.4 s


# -- credentials ------------------------------------------------------------------------------------------


def plugin(folder: Path, body: str) -> dict[str, Any]:
    """The kubeconfig's user whose exec plugin is this program."""
    program = folder / "plugin"
    program.write_text(f"#!{sys.executable}\nimport json, pathlib, sys, time\n{textwrap.dedent(body)}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    version = "client.authentication.k8s.io/v1"
    return {"exec": {"apiVersion": version, "command": str(program), "interactiveMode": "Never"}}


def gives(folder: Path, token: str, expires: str = "2001-01-01T00:00:00Z") -> dict[str, Any]:
    """A plugin that counts its calls in a file; `token` is an expression in which `n` is their number."""
    return plugin(
        folder,
        f"""
        calls = pathlib.Path({str(folder / "calls")!r})
        n = int(calls.read_text()) + 1 if calls.exists() else 1
        calls.write_text(str(n))
        status = {{"token": {token}, "expirationTimestamp": "{expires}"}}
        version = "client.authentication.k8s.io/v1"
        print(json.dumps({{"apiVersion": version, "kind": "ExecCredential", "status": status}}))
        """,
    )


def unauthorized(_: Asked) -> bytes:
    return answer(401, {"kind": "Status", "reason": "Unauthorized", "code": 401})


async def test_a_plugin_whose_tokens_are_all_refused_is_asked_once_a_request(tmp_path: Path) -> None:
    async with raw_server(unauthorized) as server:
        path = kubeconfig(tmp_path, server.url, **gives(tmp_path, "f'token-{n}'"))
        async with await Kube.connect(path) as kube, asyncio.timeout(30):
            with pytest.raises(ApiError, match="log in again"):
                await kube.get(POD)
    assert [a.headers["authorization"] for a in server.asked] == ["Bearer token-1", "Bearer token-2"]


@pytest.mark.parametrize("call", ["get", "watch", "exec"])
async def test_a_token_that_ran_out_is_replaced(call: str, tmp_path: Path) -> None:
    event = json.dumps({"type": "ADDED", "object": THERE}).encode()

    def respond(a: Asked) -> bytes:
        if a.headers["authorization"] != "Bearer token-2":
            return unauthorized(a)
        return answer(200, event if "watch=1" in a.query else THERE)

    async with raw_server(respond) as server:
        path = kubeconfig(tmp_path, server.url, **gives(tmp_path, "f'token-{n}'"))
        async with await Kube.connect(path) as kube:
            if call == "get":
                assert await kube.get(POD) == THERE
            elif call == "watch":
                assert await anext(kube.watch(PODS, "inference", version="1")) == ("ADDED", THERE)
            else:
                with pytest.raises(Unreachable):  # the answer is no WebSocket's, but it was let in
                    await kube.exec(POD, "main", ["true"])
    assert server.asked[-1].headers["authorization"] == "Bearer token-2"
    assert (tmp_path / "calls").read_text() == "2"


async def test_requests_that_are_refused_together_ask_the_plugin_once(tmp_path: Path) -> None:
    def respond(a: Asked) -> bytes:
        return answer(200, THERE) if a.headers["authorization"] == "Bearer token-2" else unauthorized(a)

    async with raw_server(respond) as server:
        path = kubeconfig(tmp_path, server.url, **gives(tmp_path, "f'token-{n}'"))
        async with await Kube.connect(path) as kube:
            assert await asyncio.gather(*(kube.get(POD) for _ in range(8))) == [THERE] * 8
    assert (tmp_path / "calls").read_text() == "2"


CREDENTIAL = "{'apiVersion': 'client.authentication.k8s.io/v1', 'kind': 'ExecCredential', 'status': STATUS}"
BROKEN = {
    "exit": "sys.exit('no such profile')",
    "html": "print('<html>log in here</html>')",
    "list": "print('[]')",
    "nothing": "",
    "null": f"print(json.dumps({CREDENTIAL.replace('STATUS', 'None')}))",
    "empty": f"print(json.dumps({CREDENTIAL.replace('STATUS', '{}')}))",
    "hangs": "time.sleep(600)",
}


@pytest.mark.parametrize("way", BROKEN)
async def test_a_plugin_that_fails_says_so(way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(credentials, "WITHIN", 2.0)
    path = kubeconfig(tmp_path, "http://127.0.0.1:1", **plugin(tmp_path, BROKEN[way]))
    with pytest.raises(ConfigError, match="nothing to log in with"):
        await Kube.connect(path)


@pytest.mark.parametrize("way", BROKEN)
async def test_a_plugin_that_fails_later_is_nobody_who_answers(
    way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = gives(tmp_path, "'old'")
    async with (
        raw_server(unauthorized) as server,
        await Kube.connect(kubeconfig(tmp_path, server.url, **user)) as kube,
    ):
        monkeypatch.setattr(credentials, "WITHIN", 2.0)
        plugin(tmp_path, BROKEN[way])
        with pytest.raises(NoCredentials, match="log in by hand"):
            await kube.get(POD)
    assert len(server.asked) == 1


@pytest.mark.parametrize("where", ["tokenFile", "token"])
async def test_a_token_that_was_replaced_where_it_is_kept_is_read_again(where: str, tmp_path: Path) -> None:
    """Once per call, from where the first one was read."""

    def respond(a: Asked) -> bytes:
        return answer(200, THERE) if a.headers["authorization"] == "Bearer new" else unauthorized(a)

    kept = tmp_path / "token"

    def keep(token: str) -> dict[str, str]:
        kept.write_text(token)
        return {where: str(kept) if where == "tokenFile" else token}

    async with (
        raw_server(respond) as server,
        await Kube.connect(kubeconfig(tmp_path, server.url, **keep("old"))) as kube,
    ):
        with pytest.raises(ApiError, match="log in again"):
            await kube.get(POD)
        assert len(server.asked) == 1
        kubeconfig(tmp_path, server.url, **keep("new"))
        assert await kube.get(POD) == THERE
        assert len(server.asked) == 3


async def test_a_token_for_another_server_is_not_sent_to_this_one(tmp_path: Path) -> None:
    async with (
        raw_server(unauthorized) as server,
        await Kube.connect(kubeconfig(tmp_path, server.url, token="old")) as kube,
    ):
        kubeconfig(tmp_path, "http://127.0.0.1:1", token="another")
        with pytest.raises(ApiError, match="log in again"):
            await kube.get(POD)
    assert {a.headers["authorization"] for a in server.asked} == {"Bearer old"}


@pytest.mark.parametrize("given", ["proxy-url", "HTTP_PROXY", "NO_PROXY"])
async def test_every_request_goes_by_the_same_proxy(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands in containers as well, which have a connection of their own."""
    async with raw_server(lambda _: answer(200, THERE)) as proxy:
        path = kubeconfig(tmp_path, "http://api.invalid:8080")
        for name in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
            monkeypatch.delenv(name, raising=False)
        if given == "proxy-url":
            document = json.loads(path.read_text())
            document["clusters"][0]["cluster"]["proxy-url"] = proxy.url
            path.write_text(json.dumps(document))
        else:
            monkeypatch.setenv("http_proxy", proxy.url)
        if given == "NO_PROXY":
            monkeypatch.setenv("no_proxy", "api.invalid")
        async with await Kube.connect(path) as kube:
            kube.patience = 0.0
            if given == "NO_PROXY":
                with pytest.raises(Unreachable):
                    await kube.get(POD)
            else:
                assert await kube.get(POD) == THERE
            with pytest.raises(Unreachable):  # no WebSocket is spoken here
                await kube.exec(POD, "main", ["true"])
    sent = {a.path for a in proxy.asked}
    pod = "http://api.invalid:8080/api/v1/namespaces/inference/pods/web-0"
    assert sent == (set() if given == "NO_PROXY" else {pod, f"{pod}/exec"})


async def test_a_kubeconfig_that_acts_as_another_user_does(tmp_path: Path) -> None:
    """Whoever gives rights up by `as` must not run with all of their own."""
    async with raw_server(lambda _: answer(200, THERE)) as server:
        user = {"token": "secret", "as": "ci", "as-groups": ["a", "b"], "as-user-extra": {"Scopes": ["x"]}}
        async with await Kube.connect(kubeconfig(tmp_path, server.url, **user)) as kube:
            kube.patience = 0.0
            await kube.get(POD)
            with pytest.raises(Unreachable):  # no WebSocket is spoken here
                await kube.exec(POD, "main", ["true"])
    assert len(server.asked) > 1
    for asked_for in server.asked:
        sent = {k: v for k, v in asked_for.headers.items() if k.startswith("impersonate")}
        assert sent == {
            "impersonate-user": "ci",
            "impersonate-group": "a, b",
            "impersonate-extra-scopes": "x",
        }
