"""Ways by name, and groups of them."""

import pytest

from napari_samic.benchmark.methods import expand
from napari_samic.core.errors import SettingsError

LAYERS = ("layers-1", "layers-2", "paper+level", "layers-4")
LOSSES = ("kld", "cc", "nss", "kld+cc", "kld+nss", "cc+nss", "paper+level")


@pytest.mark.parametrize(
    ("asked", "wanted"),
    [
        pytest.param(("samic", "paper"), ("samic", "paper"), id="no_group"),
        pytest.param(("ablate-layers",), LAYERS, id="layers"),
        pytest.param(("ablate-losses",), LOSSES, id="losses"),
        pytest.param(
            ("paper+level", "ablate-layers", "samic", "layers-1"),
            ("paper+level", "layers-1", "layers-2", "layers-4", "samic"),
            id="each_once_where_it_came_first",
        ),
        pytest.param(("ablate-layers", "ablate-losses"), (*LAYERS, *LOSSES[:-1]), id="both"),
    ],
)
def test_groups_stand_for_their_ways(asked, wanted):
    assert expand(asked) == wanted


def test_unknown_group_is_told_with_those_there_are():
    with pytest.raises(SettingsError, match=r"^unknown ablate\. Known: paper, .*ablate-layers, "):
        expand(["paper", "ablate"])
