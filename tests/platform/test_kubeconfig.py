"""Other people's kubeconfigs, taken as client-go takes them, or refused in words."""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from aiohttp import encode_basic_auth

from gameday.masking import mask_text
from gameday.platform import child
from gameday.platform.errors import ApiError, ConfigError
from gameday.platform.kube import Kube
from gameday.platform.objects import Ref
from tests.support.kubeconfigs import kubectl
from tests.support.raw import Asked, answer, raw_server

pytestmark = pytest.mark.fast
POD = Ref("v1", "Pod", "web-0", "inference")
PLUGIN = "client.authentication.k8s.io/v1"


def written(folder: Path, url: str = "http://127.0.0.1:1", user: Any = None, **more: Any) -> Path:
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "here",
        "clusters": [{"name": "here", "cluster": {"server": url}}],
        "users": [{"name": "here", "user": user or {}}],
        "contexts": [{"name": "here", "context": {"cluster": "here", "user": "here"}}],
    } | more
    path = folder / "kubeconfig"
    path.write_text(json.dumps({k: v for k, v in document.items() if v is not None}))
    return path


async def sent(folder: Path, user: dict[str, Any]) -> str:
    """The Authorization header of a request."""

    def there(_: Asked) -> bytes:
        meta = {"name": "web-0", "namespace": "inference", "uid": "1"}
        return answer(200, {"apiVersion": "v1", "kind": "Pod", "metadata": meta})

    async with raw_server(there) as server, await Kube.connect(written(folder, server.url, user)) as kube:
        await kube.get(POD)
    return server.asked[0].headers["authorization"]


@pytest.mark.parametrize("beside", [{}, {"token": "stale"}])
async def test_a_file_with_a_token_goes_first_and_may_end_in_a_newline(
    beside: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "token").write_text("fresh\n")
    assert await sent(tmp_path, {"tokenFile": "token", **beside}) == "Bearer fresh"


async def test_without_its_file_the_token_beside_it_counts(tmp_path: Path) -> None:
    assert await sent(tmp_path, {"tokenFile": "gone", "token": "beside"}) == "Bearer beside"


async def test_a_plugins_path_is_from_the_folder_of_its_kubeconfig(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = {"apiVersion": PLUGIN, "kind": "ExecCredential", "status": {"token": "given"}}
    program = tmp_path / "bin" / "get-token"
    program.parent.mkdir()
    program.write_text(f"#!{sys.executable}\nprint({json.dumps(given)!r})\n")
    program.chmod(0o755)
    monkeypatch.chdir("/")
    assert await sent(tmp_path, {"exec": {"apiVersion": PLUGIN, "command": "./bin/get-token"}}) == (
        "Bearer given"
    )


@pytest.mark.parametrize(
    ("user", "more", "words"),
    [
        ({}, {"current-context": None}, ["current-context", "contexts for --context: here"]),
        ({}, {"current-context": ""}, ["contexts for --context: here"]),
        ({}, {"current-context": "mars"}, ["mars", "contexts for --context: here"]),
        ({"tokenFile": "gone"}, {}, ["tokenFile", "gone"]),
        ({"auth-provider": {"name": "gcp", "config": {"cmd-path": "/x"}}}, {}, ["cmd-args"]),
        ({"auth-provider": {"name": "oidc", "config": {"id-token": "a.b"}}}, {}, ["JWT"]),
        ({"exec": {"apiVersion": PLUGIN, "command": "./gone"}}, {}, ["no program", "gone"]),
    ],
)
async def test_a_wrong_one_is_refused_in_words(
    user: dict[str, Any], more: dict[str, Any], words: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as refused:
        await Kube.connect(written(tmp_path, user=user, **more))
    told = mask_text(str(refused.value))
    assert [word for word in words if word not in told] == []
    assert "***" not in told


async def test_a_password_that_no_server_takes_any_more_is_refused_in_words(tmp_path: Path) -> None:
    """As kubectl, which sends it still; the --basic-auth-file of kube-apiserver went with Kubernetes 1.19."""
    user = {"username": "admin", "password": "hunter2/hunter2"}
    said = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "Unauthorized", "code": 401}
    async with (
        raw_server(lambda _: answer(401, said)) as server,
        await Kube.connect(written(tmp_path, server.url, user)) as kube,
    ):
        with pytest.raises(ApiError, match=r"no username and password since 1\.19: .* token") as refused:
            await kube.get(POD)
    assert server.asked[0].headers["authorization"] == encode_basic_auth("admin", "hunter2/hunter2")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "context", "words"),
    [
        ("", None, ["kubeconfig holds nothing; expected a mapping"]),
        ("a token of somebody", None, ["kubeconfig holds text; expected a mapping"]),
        ("[]", None, ["kubeconfig holds a list; expected a mapping"]),
        ("{clusters: here}", None, ["clusters in", "is text; expected a list"]),
        ("{users: [{name: me, user: secretly}]}", None, ["item 1 of users in", "expected name and user"]),
        ("{contexts: [here]}", None, ["item 1 of contexts in", "expected name and context"]),
        (None, "mars", ["context 'mars' cannot be used", "there is no context mars", "--context: here)"]),
        (None, "here", ["the context here names the cluster gone, and there is none of that name"]),
    ],
)
async def test_one_that_is_none_is_refused_in_words(
    text: str | None, context: str | None, words: list[str], tmp_path: Path
) -> None:
    """In our words, not in Python's or the library's: nobody outside knows what an object with a name is."""
    lost: dict[str, Any] = {"contexts": [{"name": "here", "context": {"cluster": "gone", "user": "here"}}]}
    file = written(tmp_path, **lost)
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match="cannot be used") as refused:
        await Kube.connect(file, context)
    told = str(refused.value)
    assert [word for word in words if word not in told] == []
    assert [w for w in ("object", "somebody", "secretly", "Expected") if w in told] == []


def part(**more: Any) -> dict[str, Any]:
    """A kubeconfig that holds a part; the cluster of each context is c."""
    named = {key: [{"name": n, key[:-1]: v} for n, v in more.pop(key, {}).items()] for key in PARTS}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        **named,
        **{k.replace("_", "-"): v for k, v in more.items()},
    }


PARTS = ("clusters", "users", "contexts")
A, B = ({"server": f"http://{n}.invalid:1"} for n in "ab")
HERE, THERE = {"cluster": "c"}, {"cluster": "d"}
WHOLE = part(clusters={"c": A, "d": B}, contexts={"here": HERE, "there": THERE})


@pytest.mark.parametrize(
    "files",
    [
        [WHOLE | {"current-context": "here"}, part(current_context="there")],
        [part(current_context="there"), WHOLE | {"current-context": "here"}],
        [WHOLE, part(current_context=""), part(current_context="there"), part(current_context="here")],
        [WHOLE | {"current-context": "here"}, part(current_context="")],
        [None, WHOLE | {"current-context": "there"}, part(current_context="here")],
        ["", WHOLE | {"current-context": "there"}, part(current_context="here")],
        ["# mine\n---\n\n", "{}", part(current_context="there"), " \n", WHOLE, "null\n"],
        [part(current_context="one", contexts={"one": HERE}, clusters={"c": A}), part(clusters={"c": B})],
        [part(current_context="one", clusters={"c": A}), part(contexts={"one": HERE}, clusters={"c": B})],
        [part(current_context="one", contexts={"one": THERE}), part(contexts={"one": HERE}), WHOLE],
        [
            part(
                current_context="one",
                contexts={"one": HERE | {"user": "u"}},
                clusters={"c": A},
                users={"u": {}},
            ),
            part(clusters={"c": B | {"proxy-url": "http://p:1"}}, users={"u": {"token": "another's"}}),
        ],
    ],
)
async def test_of_several_files_the_first_counts_as_for_kubectl(
    files: list[dict[str, Any] | str | None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = [tmp_path / str(number) for number in range(len(files))]
    for path, document in zip(paths, files, strict=True):
        if document is not None:
            path.write_text(document if isinstance(document, str) else json.dumps(document))
    monkeypatch.setenv("KUBECONFIG", ":".join(map(str, paths)))
    wanted = "{.current-context} {..server} {..proxy-url} {..token}"
    async with await Kube.connect() as kube:
        ours = await read(kube.environment(), wanted)
        assert (kube.context, kube.server) == tuple(ours.split()[:2])
    assert ours == await read({}, wanted, "--minify")


async def test_other_programs_get_one_cluster_in_a_file_that_goes_with_the_client(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it names is found from anywhere, as kubectl reads it."""
    monkeypatch.setattr(tempfile, "tempdir", str(temporary := tmp_path / "temporary"))
    temporary.mkdir()
    (tmp_path / "pki").mkdir()
    for name in ("ca", "token"):
        (tmp_path / "pki" / name).write_text("")
    cluster = {"server": "http://127.0.0.1:1", "certificate-authority": "pki/ca"}
    user = {"tokenFile": "pki/token", "token": "1234567e89", "as": "ä"}
    more: dict[str, Any] = {"clusters": [{"name": n, "cluster": cluster} for n in ("here", "prod")]}
    async with await Kube.connect(written(tmp_path, user=user, **more), "here") as kube:
        environment = kube.environment()
        file = Path(environment["KUBECONFIG"])
        assert [oct(p.stat().st_mode & 0o777) for p in (file, file.parent)] == ["0o600", "0o700"]
        assert await read(environment, "{..cluster.server} {..certificate-authority}") == (
            f"http://127.0.0.1:1 {tmp_path}/pki/ca"
        )
        assert await read(environment, "{..user.tokenFile} {..user.token} {..user.as}") == (
            f"{tmp_path}/pki/token 1234567e89 ä"
        )
        shutil.rmtree(file.parent)  # as what tidies up a folder for temporary files does
        assert await read(kube.environment(), "{.current-context} {..contexts[*].name}") == "here here"
    assert list(temporary.iterdir()) == []


@pytest.mark.parametrize(("moved", "token"), [(False, "renewed"), (True, "at first")])
async def test_other_programs_log_in_with_what_their_file_is_renewed_with(
    moved: bool, token: str, tmp_path: Path
) -> None:
    """Of the same server: what a file says of another one is nothing to the run."""

    def respond(asked: Asked) -> bytes:
        fits = asked.headers["authorization"] == "Bearer renewed"
        return answer(200, {"gitVersion": "v1.36.0"}) if fits else answer(401, {"kind": "Status"})

    async with (
        raw_server(respond) as server,
        await Kube.connect(written(tmp_path, server.url, {"token": "at first"})) as kube,
    ):
        written(tmp_path, "http://127.0.0.1:1" if moved else server.url, {"token": "renewed"})
        with suppress(ApiError):
            await kube.version()
        assert await read(kube.environment(), "{..server} {..token}") == f"{server.url} {token}"


async def read(environment: dict[str, str], path: str, *options: str) -> str:
    """What kubectl reads in the file of an environment, from another folder."""
    command = [kubectl(), "config", "view", "--raw", *options, "-o", f"jsonpath={path}"]
    return (await child.run(command, 60, environment=environment)).out.decode()


@pytest.mark.parametrize("scheme", ["socks5", "socks5h"])
async def test_a_proxy_that_does_not_speak_http_is_sent_nothing(scheme: str, tmp_path: Path) -> None:
    """client-go takes SOCKS proxies; plain HTTP to one would hand it the token."""
    cluster = {"server": "http://127.0.0.1:1", "proxy-url": f"{scheme}://me:secret@127.0.0.1:1080"}
    path = written(tmp_path, user={"token": "t"}, clusters=[{"name": "here", "cluster": cluster}])
    with pytest.raises(
        ConfigError, match=rf"its proxy-url is {scheme}://127\.0\.0\.1:1080, .*ssh -L"
    ) as refused:
        await Kube.connect(path)
    assert "secret" not in str(refused.value)
