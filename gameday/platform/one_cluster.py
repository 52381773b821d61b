"""The kubeconfig for programs that are started for a run: its cluster, user and context, and nothing else.

The user's own file will not do. kubectl and helm act on its current context, whatever the run's one is, and
whoever writes to it while the run lasts would send them to another cluster.
"""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import weakref
from pathlib import Path
from typing import Any

from gameday.platform.errors import PlatformError

# Fields that hold a path, from the folder of their kubeconfig (client-go's clientcmd/loader.go).
_PATHS = ("certificate-authority", "client-certificate", "client-key", "tokenFile")


class OneCluster:
    """What a kubeconfig's loader found, as it was then, in a file that goes with this object."""

    def __init__(self, loader: Any) -> None:
        self._context: dict[str, Any] = loader.current_context
        self._cluster, self._user = _absolute(loader._cluster), _absolute(loader._user)
        self._remove: weakref.finalize[..., OneCluster] | None = None
        self._folder = Path()

    def log_in_as(self, loader: Any) -> None:
        """Take the credentials that the user's file holds now; all else stays."""
        self._user = _absolute(loader._user)

    def environment(self) -> dict[str, str]:
        """The environment of a program to be started. Raises PlatformError where it can't be prepared.

        The file is written anew each time: the program before may have changed it, as `kubectl config
        use-context` does and what clouds offer to log in with.
        """
        try:
            file = self._write()
        except OSError as error:
            raise NotPrepared(f"the kubeconfig for other programs can't be written: {error}") from error
        name = str(self._context["name"])
        # The first is Chaos Toolkit's; helm's own go before what the file says (pkg/cli/environment.go).
        context = {"KUBERNETES_CONTEXT": name, "HELM_KUBECONTEXT": name, "HELM_KUBEAPISERVER": ""}
        return {"KUBECONFIG": str(file), **context}

    def remove(self) -> None:
        """Remove the file; it is written again for whoever asks for an environment."""
        if self._remove is not None:
            self._remove()

    def _write(self) -> Path:
        if self._remove is None or not self._folder.is_dir():
            self.remove()
            self._folder = Path(tempfile.mkdtemp(prefix="gameday-"))
            self._remove = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        file, new = self._folder / "kubeconfig", self._folder / "kubeconfig.new"
        with open(new, "w", encoding="utf-8", opener=_for_us_alone) as written:
            json.dump(self._document(), written, ensure_ascii=False, default=str)
        return new.replace(file)  # at once: another program may be reading

    def _document(self) -> dict[str, Any]:
        context = self._context["context"]
        users = [{"name": name, "user": self._user}] if (name := context.get("user")) else []
        return {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": self._context["name"],
            "contexts": [self._context],
            "clusters": [{"name": context["cluster"], "cluster": self._cluster}],
            "users": users,
        }


class NotPrepared(PlatformError):
    """A program was not started: there is no kubeconfig for it."""

    may_land = False


def _for_us_alone(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _absolute(node: Any) -> dict[str, Any]:
    """A cluster or a user of a kubeconfig, fit for another folder."""
    if node is None:
        return {}
    folder = Path(node.path or "").absolute().parent
    held: dict[str, Any] = {k: str(folder / v) if k in _PATHS and v else v for k, v in node.value.items()}
    plugin = held.get("exec")
    if plugin and "/" in plugin["command"]:  # others are found by $PATH
        held["exec"] = plugin | {"command": str(folder / plugin["command"])}
    return held
