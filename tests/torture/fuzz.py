"""Fuzzed input, with a fixed budget: a clear error or a correct result, and never a stack trace.

Experiment files are the library's own, with pieces taken out, doubled and replaced. What comes from servers
is spoilt on its way: objects of the API, records in the cluster, and logs, of which messages are made.
No process may take more than 10 s, or 300 MB beyond its libraries.
"""

from __future__ import annotations

import asyncio
import base64
import copy
import gzip
import json
import os
import resource
import subprocess
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.support.forked import Forked
from tests.support.platforms import ROOT
from tests.support.slack import FakeSlack
from tests.support.threads import LoopThread
from tests.torture import catalogue
from tests.torture.figures import Figures
from tests.torture.kills import Bench
from tests.torture.liar import Answers
from tests.torture.program import Ended
from tests.torture.wire import Call, Fair, Reply

MEMORY = 300 * 2**20  # bytes beyond the libraries that were loaded before
WITHIN = 10.0  # seconds
SPICE = [
    *("", " ", "\x00", "\u202eevil", "\x1b[31mred", "a" * 5000, "../../x", "a/b", "%2e%2e", "{{ x }}", "{{"),
    *("{% for %}", "<b>", "[bold]", "<!channel>", "null", "NaN", "1e400", "-1", "0s", "1h", "100%", "101%"),
    *("< 5", ">= 90% of baseline", "deployment/x", "gpu-0", "inference", "app=x", "app in (", "sum(up", "up"),
    *("{.status.phase}", "{.a[", "$[?(@", "((((", "!!python/object:os.system", "&a [*a]", "2026-11-29"),
    *("٣", "Ⅷ", "ﬁ", "𝟙𝟘", "1_000", "0x10", "1e3", "+5", "1m1"),
]
NUMBERS = [0, -1, 1, 2**31, 2**63, 2**64, 10**400, 1e308, -0.0, float("inf"), float("nan"), 0.1]
JUNK = st.one_of(
    st.sampled_from(SPICE),
    st.sampled_from(NUMBERS),
    st.booleans(),
    st.none(),
    st.text(max_size=20),
    st.just([]),
    st.just({}),
    st.lists(st.sampled_from(SPICE), max_size=3),
    st.dictionaries(st.sampled_from(SPICE[:20]), st.sampled_from(SPICE), max_size=3),
    st.integers(1, 60).map(lambda depth: json.loads("[" * depth + "]" * depth)),
)


def paths(value: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where the pieces of a document are."""
    found = [at]
    if isinstance(value, dict):
        found += [p for key, inner in value.items() for p in paths(inner, (*at, key))]
    elif isinstance(value, list):
        found += [p for index, inner in enumerate(value) for p in paths(inner, (*at, index))]
    return found


@st.composite
def spoilt(draw: Any, documents: list[Any], most: int = 3) -> Any:
    """One of the documents with pieces taken out, replaced, renamed, or put somewhere else."""
    whole = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, most))):
        where = draw(st.sampled_from(paths(whole)))
        if not where:
            continue
        parent = whole
        for key in where[:-1]:
            parent = parent[key]
        match draw(st.sampled_from(["junk", "out", "rename", "move", "double"])):
            case "junk":
                parent[where[-1]] = draw(JUNK)
            case "out":
                del parent[where[-1]]
            case "rename" if isinstance(parent, dict):
                parent[draw(st.sampled_from(SPICE))] = parent.pop(where[-1])
            case "move":
                other = draw(st.sampled_from(paths(whole)))
                piece: Any = whole
                for key in other:
                    piece = piece[key]
                parent[where[-1]] = copy.deepcopy(piece)
            case "double" if isinstance(parent, list):
                parent.append(copy.deepcopy(parent[where[-1]]))
    return whole


@dataclass
class Judge:
    """Runs the program on one input, and says what is wrong with how that ended."""

    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    within: float = WITHIN

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        clean = {k: v for k, v in os.environ.items() if not k.startswith(("SLACK_", "GAMEDAY_"))}
        self.environment = {**clean, "COLUMNS": "200", "NO_COLOR": "1", **self.environment}

    def run(self, *arguments: str) -> Ended:
        output = self.folder / "output.txt"
        output.write_text("")
        began = time.monotonic()
        process = Forked(list(arguments), ROOT, self.environment, output)
        pid = process._process.pid
        assert pid is not None
        try:
            limit = _data(pid) + MEMORY
            resource.prlimit(pid, resource.RLIMIT_DATA, (limit, limit))
            code = process.wait(self.within)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            said = output.read_text(errors="replace")[-400:]
            raise AssertionError(f"still running after {self.within:g} s: {said}") from None
        except (ProcessLookupError, FileNotFoundError):  # it has ended already
            code = process.wait()
        return Ended(code, output.read_text(errors="replace"), time.monotonic() - began)

    def check(self, *arguments: str, codes: tuple[int, ...]) -> Ended:
        """No stack trace, and one of these exit codes with a word about it."""
        ended = self.run(*arguments)
        assert not ended.traced, f"a stack trace: {ended.output[-800:]}"
        assert ended.code in codes, f"exit code {ended.code}: {ended.output[-800:]}"
        assert ended.code == 0 or ended.output.strip(), "it fails without a word"
        return ended


def _data(pid: int) -> int:
    """Bytes of a process' own writable memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[5]) * resource.getpagesize()


def _documents(scratch: Path) -> list[Any]:
    library = [yaml.safe_load(f.read_text()) for f in sorted((ROOT / "experiments").glob("*.yaml"))]
    for case in catalogue.cases(scratch):
        library.append(yaml.safe_load(case.write(scratch).read_text()))
    return library


def _dump(document: Any) -> str:
    try:
        return yaml.safe_dump(document, allow_unicode=True, sort_keys=False)
    except yaml.YAMLError:  # a character that YAML can't hold
        return json.dumps(document)


# -- the kinds of input ------------------------------------------------------------------------------


def _files(bench: Bench) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    judge = Judge(bench.scratch / "files")
    file = judge.folder / "experiment.yaml"

    def check(document: Any) -> None:
        file.write_text(_dump(document), errors="surrogatepass")
        judge.check("validate", str(file), codes=(0, 2))

    return spoilt(_documents(bench.scratch)), check


def _texts(bench: Bench) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """The library's files as text with bytes cut out, repeated and replaced."""
    judge = Judge(bench.scratch / "texts")
    file = judge.folder / "experiment.yaml"
    texts = [f.read_bytes() for f in sorted((ROOT / "experiments").glob("*.yaml"))]

    @st.composite
    def cut(draw: Any) -> bytes:
        text = draw(st.sampled_from(texts))
        for _ in range(draw(st.integers(1, 4))):
            start = draw(st.integers(0, len(text)))
            end = draw(st.integers(start, min(len(text), start + 40)))
            piece = draw(st.one_of(st.binary(max_size=6), st.sampled_from([s.encode() for s in SPICE])))
            text = text[:start] + piece + text[end:]
        return bytes(text)

    def check(text: bytes) -> None:
        file.write_bytes(text)
        judge.check("validate", str(file), codes=(0, 2))

    return cut(), check


class Spoiler(Fair):
    """Answers one of the reads with an object of another making."""

    def __init__(self, number: int, reply: Any) -> None:
        self.number, self.reply, self.reads = number, reply, 0

    async def before(self, call: Call) -> Reply | None:
        if call.method != "GET" or call.watches:
            return None
        self.reads += 1
        if self.reads != self.number:
            return None
        return Reply(200, json.dumps(self.reply))


def _objects(bench: Bench) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Objects of the API that are not what they should be, at each read of a plan."""
    judge = Judge(bench.scratch / "objects", dict(bench.program.environment))
    cases = [c for c in catalogue.cases(bench.scratch) if not c.slow]
    world = bench.world
    real = [world.get("/api/v1/nodes/gpu-0"), world.get("/api/v1/namespaces/inference/pods")]
    real += [world.get("/apis/apps/v1/namespaces/platform/deployments/job-queue-controller")]
    real += [world.get("/api/v1/nodes"), world.get("/apis/argoproj.io/v1alpha1/applications")]
    for listed in real:
        listed["items"] = listed.get("items", [])[:2] if "items" in listed else listed.pop("items", None)
        if listed["items"] is None:
            del listed["items"]
    asked = st.tuples(st.sampled_from(cases), st.integers(1, 25), spoilt(real))

    def check(asked: tuple[catalogue.Case, int, Any]) -> None:
        case, number, reply = asked
        bench.wires.begin(Spoiler(number, reply))
        judge.check("plan", str(case.write(judge.folder)), codes=(0, 2, 3, 4))

    return asked, check


LEASES = "/apis/coordination.k8s.io/v1/namespaces/gameday/leases"
RECORD = {
    "n": 1,
    "step": "1",
    "state": "made",
    "op": {
        "op": "patch",
        "ref": {"apiVersion": "v1", "kind": "Node", "name": "gpu-0", "namespace": "", "uid": "x"},
        "edits": [{"path": ["spec", "unschedulable"], "before": None, "after": True, "item": {}}],
    },
}


def _records(bench: Bench) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Records that nobody of ours wrote: nothing is done for them, and nothing is kept from being done."""
    # `recover` watches a Lease for as long as it lasts before it calls a run dead.
    judge = Judge(bench.scratch / "records", dict(bench.direct.environment), within=60)
    path = "/api/v1/namespaces/gameday/configmaps"
    ran = bench.scratch / "records" / "ran"
    program = {"type": "process", "path": "touch", "arguments": str(ran)}
    activity = {"op": "activity", "undo": {"type": "action", "name": "x", "provider": program}}
    documents = [[RECORD], [{**RECORD, "op": activity}], [RECORD, {**RECORD, "n": 2}]]

    def check(records: Any) -> None:
        text = (
            "".join(json.dumps(r) + "\n" for r in records)
            if isinstance(records, list)
            else json.dumps(records)
        )
        name = "gameday-forged-261129-000000-0000"
        forged = {
            "metadata": {
                "name": name,
                "labels": {"gameday.dev/run": name.removeprefix("gameday-"), "gameday.dev/ledger": "true"},
            },
            "binaryData": {"entries.jsonl.gz": base64.b64encode(gzip.compress(text.encode())).decode()},
        }
        bench.world.ask("POST", path, forged)
        try:
            judge.check("status", codes=(0, 1, 3, 5))
            judge.check("recover", codes=(0, 2, 3, 5))
            assert not ran.exists(), "a forged record ran a program"
            left = [x for x in bench.left(0.0) if " gameday/" not in x]
            assert not left, f"a forged record changed the world: {left[:3]}"
        finally:
            ran.unlink(missing_ok=True)
            for kind in (path, LEASES):
                off = {"metadata": {"finalizers": None}}
                bench.world.ask("PATCH", f"{kind}/{name}", off, "application/merge-patch+json")
                bench.world.ask("DELETE", f"{kind}/{name}")

    return spoilt(documents), check


def _logs(bench: Bench) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """A log with other texts in it: the report and the message for Slack are made of it all the same."""
    judge, slack, thread = Judge(bench.scratch / "logs"), FakeSlack(), LoopThread("slack")
    thread.call(slack.start())
    judge.environment |= {"SLACK_BOT_TOKEN": slack.token, "SLACK_API_URL": slack.url}
    folder, lines = _log(bench, judge.folder)

    def check(events: list[Any]) -> None:
        slack.calls.clear()
        (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in events))
        judge.check("report", str(folder), codes=(0, 1, 2, 3))
        judge.check("report", "post", str(folder), codes=(0, 1, 2, 3))
        sent = json.dumps([call.arguments for call in slack.calls if call.method == "chat.postMessage"])
        assert "<!channel>" not in sent, "a mention in the log calls the channel"

    return _other_texts(lines), check


def _log(bench: Bench, within: Path) -> tuple[Path, list[Any]]:
    """A folder for a run's log, and the events of one."""
    folder = within / "torture-261129-000000-0000"
    folder.mkdir(exist_ok=True)
    file = catalogue.cases(bench.scratch)[0].write(bench.scratch, report={"slack": "#gpu-gamedays"})
    made = bench.direct.run(file).ended()
    assert made.folder is not None, made.output
    return folder, [json.loads(line) for line in (made.folder / "events.jsonl").read_text().splitlines()]


@st.composite
def _other_texts(draw: Any, lines: list[Any]) -> Any:
    whole = copy.deepcopy(lines)
    texts = [p for p in paths(whole) if isinstance(_piece(whole, p), str) and p[-1] not in MEANT]
    for where in draw(st.lists(st.sampled_from(texts), min_size=1, max_size=6)):
        _piece(whole, where[:-1])[where[-1]] = draw(st.sampled_from(SPICE) | st.text(max_size=30))
    return whole


MEANT = {
    "type",
    "state",
    "verdict",
    "purpose",
    "phase",
    "level",
    "run",
    "apiVersion",
    "kind",
}  # words with a meaning


def _piece(whole: Any, where: tuple[Any, ...]) -> Any:
    for key in where:
        whole = whole[key]
    return whole


def _slack_answers(bench: Bench) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Slack answers something else."""
    judge, server = Judge(bench.scratch / "slack"), Answers()
    server.start()
    judge.environment |= {"SLACK_BOT_TOKEN": "xoxb-fuzzed", "SLACK_API_URL": f"{server.url}/api/"}
    folder, lines = _log(bench, judge.folder)
    (folder / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in lines))
    judge.check("report", str(folder), codes=(0,))
    posted = {
        "ok": True,
        "channel": "C1",
        "ts": "1.2",
        "message": {"text": "x"},
        "channels": [{"id": "C1", "name": "x"}],
    }

    def check(answer: Any) -> None:
        server.body = json.dumps(answer).encode()
        judge.check("report", "post", str(folder), codes=(0, 1, 2, 3))

    return spoilt([posted, {"ok": False, "error": "channel_not_found"}]), check


def _prometheus_answers(bench: Bench) -> tuple[st.SearchStrategy[Any], Callable[[Any], None]]:
    """Prometheus answers something else, to every way in which it is asked."""
    from gameday.platform.errors import PlatformError
    from gameday.platform.prometheus import Prometheus

    server = Answers()
    server.start()
    series = {"metric": {"__name__": "up", "job": "x"}}
    vector = {"resultType": "vector", "result": [{**series, "value": [1.5, "1"]}]}
    matrix = {"resultType": "matrix", "result": [{**series, "values": [[1.5, "1"], [2.5, "NaN"]]}]}
    alert = {
        "labels": {"alertname": "A"},
        "annotations": {},
        "state": "firing",
        "activeAt": "2026-11-29T00:00:00Z",
    }
    answers = [{"status": "success", "data": d} for d in (vector, matrix, {"alerts": [alert]})]

    async def ask() -> None:
        async with Prometheus(server.url) as prometheus:
            for question in (prometheus.instant("up"), prometheus.alerts()):
                with suppress(PlatformError):
                    await asyncio.wait_for(question, WITHIN)

    def check(answer: Any) -> None:
        server.body = json.dumps(answer).encode()
        try:
            asyncio.run(ask())
        except Exception as error:
            raise AssertionError(f"{type(error).__name__}: {error}") from error

    return spoilt(answers), check


KINDS = {
    "experiment files": (_files, 0.25),
    "experiment texts": (_texts, 0.15),
    "objects of the API": (_objects, 0.2),
    "records": (_records, 0.15),
    "answers of Prometheus": (_prometheus_answers, 0.05),
    "answers of Slack": (_slack_answers, 0.1),
    "texts in a log, for reports and Slack": (_logs, 0.1),
}


def fuzz(found: Figures, bench: Bench, until: float) -> None:
    """Each kind of input for its share of the time."""
    whole = until - time.monotonic()
    for name, (prepare, share) in KINDS.items():
        explore(found, name, *prepare(bench), time.monotonic() + whole * share)
        bench.wires.begin(Fair())
        if bench.left(5.0):
            bench.mend()


def explore(
    found: Figures, name: str, inputs: st.SearchStrategy[Any], check: Callable[[Any], None], until: float
) -> None:
    """Try inputs until the time is up; what fails is made smaller, and told once."""
    failed: list[str] = []
    grace = until + 10

    @seed(found.seed)
    @settings(
        max_examples=100_000,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
        report_multiple_bugs=False,
    )
    @given(inputs)
    def attempt(given_: Any) -> None:
        if time.monotonic() > (grace if failed else until):
            if not failed:
                raise _Enough
            return
        try:
            check(given_)
        except Exception as error:
            what = f"{type(error).__name__}: {str(error)[:700]}"
            failed.append(f"{what} with {json.dumps(given_, default=str)[:1500]}")
            raise
        if not failed:
            found.add("fuzz", name, (), (), "")

    try:
        attempt()
    except _Enough:
        return
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        found.add("fuzz", name, (), (failed[-1] if failed else repr(error),), "the smallest input that fails")
        print(f"  BROKEN {found.broken[-1][:1500]}", flush=True)


class _Enough(BaseException):
    """The time is up."""
