"""The nets under the other tests hold."""

import os
import socket
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest


def test_home_is_a_throw_away_folder(samic_home: Path) -> None:
    assert Path(os.environ["NAPARI_SAMIC_HOME"]) == samic_home
    assert samic_home.is_dir()


@pytest.mark.parametrize(
    "reach",
    [
        pytest.param(lambda: urllib.request.urlopen("https://example.org"), id="name"),
        pytest.param(lambda: socket.create_connection(("192.0.2.1", 80), 0.1), id="address"),
        pytest.param(lambda: socket.socket().connect_ex(("192.0.2.1", 80)), id="connect_ex"),
    ],
)
def test_reaching_for_the_network_fails_the_test(reach: Callable[[], object]) -> None:
    with pytest.raises(pytest.fail.Exception, match="went for the network"):
        reach()


def test_local_sockets_work() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname(), 1).close()
