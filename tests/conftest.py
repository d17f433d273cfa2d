"""What holds for every test: own home folder, two threads, no network."""

import os
import runpy
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "2")  # torch reads it once, when first imported

ROOT = Path(__file__).parents[1]
pytest_plugins = ["toys", "recorded"]
LOCAL = ("localhost", "127.", "::1", "0.0.0.0")


@pytest.fixture(scope="session", autouse=True)
def samic_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A throw-away $NAPARI_SAMIC_HOME: no test reads or fills the user's cache."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAPARI_SAMIC_HOME", str(home))
        yield home


def _refuse_far(host: Any) -> None:
    """Fail the test; pytest's exception passes through any `except Exception` on its way."""
    name = host.decode() if isinstance(host, bytes) else str(host or "localhost")
    if not name.startswith(LOCAL):
        pytest.fail(f"this test went for the network ({name}): replace the call in the test.")


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    def guarded(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(self: socket.socket, address: Any, *rest: Any) -> Any:
            internet = self.family in (socket.AF_INET, socket.AF_INET6)
            if internet and self.type != socket.SOCK_DGRAM:  # connecting UDP sends nothing
                _refuse_far(address[0])
            return method(self, address, *rest)

        return call

    original = socket.getaddrinfo

    def lookup(host: Any, *args: Any, **kwargs: Any) -> Any:
        _refuse_far(host)
        return original(host, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        for name in ("connect", "connect_ex"):
            patch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))
        patch.setattr(socket, "getaddrinfo", lookup)
        yield


@pytest.fixture(scope="session")
def shared_dir() -> Path:
    """The team's folder of golden values and data, beside the checkout."""
    for folder in (ROOT.parent / "shared", ROOT / "shared"):
        if folder.is_dir():
            return folder
    pytest.skip(f"no shared folder beside {ROOT}: golden values are not on this machine")


@pytest.fixture
def case(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shared_dir: Path
) -> Callable[[str], Path]:
    """Make a case of the shared folder by its number, in the working folder of the test."""

    def make(number: str) -> Path:
        (source,) = (shared_dir / "cases").glob(f"{number}_*/gen.py")
        monkeypatch.chdir(tmp_path)
        monkeypatch.syspath_prepend(source.parent)
        sys.modules.pop("scene", None)
        runpy.run_path(str(source))
        return tmp_path

    return make
