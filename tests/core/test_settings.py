import json
from dataclasses import fields

import pytest

from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import (
    AdaptSettings,
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    SegmentSettings,
    Settings,
    TrainSettings,
    public_fields,
)

ALL = [k for k in Settings.__subclasses__() if k.__module__ == Settings.__module__]


@pytest.mark.parametrize("kind", ALL)
def test_every_option_has_a_line_of_help_and_a_plain_type(kind):
    for spec in fields(kind):
        assert 0 < len(spec.metadata["help"]) <= 70
        assert spec.type in ("int", "float", "bool", "str")


def test_there_are_few_settings():
    assert sum(len(public_fields(kind)) for kind in ALL) <= 46  # eight of them are formats


@pytest.mark.parametrize("kind", [k for k in ALL if hasattr(k, "paper")])
def test_what_is_not_shown_is_there_for_the_paper_or_a_comparison(kind):
    paper, usual = kind.paper().to_dict(), kind().to_dict()
    compared = {"weigh", "layers", "kld_weight", "cc_weight", "nss_weight", "duplicate_iou"}
    unshown = {spec.name for spec in fields(kind)} - {spec.name for spec in public_fields(kind)}
    assert {name for name in unshown - compared if paper[name] == usual[name]} == set()


@pytest.mark.parametrize("kind", ALL)
def test_defaults_survive_json(kind):
    values = json.loads(json.dumps(kind().to_dict()))
    assert kind.from_dict(values) == kind()


def _plus(bound, step):
    return None if bound is None else bound + step


def beyond(spec):
    """Values just outside the bounds of one option."""
    ge, le, choices = (spec.metadata[key] for key in ("ge", "le", "choices"))
    return [v for v in (_plus(ge, -1), _plus(le, 1), choices and "neither") if v is not None]


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        pytest.param(kind, spec.name, value, id=f"{spec.name}_{value}")
        for kind in ALL
        for spec in fields(kind)
        for value in beyond(spec)
    ],
)
def test_values_outside_their_bounds_are_refused(kind, name, value):
    with pytest.raises(SettingsError, match=f"{kind.__name__}: {name} is .* expected"):
        kind(**{name: value})


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        pytest.param(TrainSettings, {"epochs": 3.0}, "epochs is 3.0, expected int", id="float"),
        pytest.param(TrainSettings, {"epochs": True}, "epochs is True, expected int", id="bool"),
        pytest.param(PeakSettings, {"normalise": 1}, "normalise is 1, expected bool", id="int"),
        pytest.param(PeakSettings, {"threshold": "x"}, "'x', expected float", id="text"),
        pytest.param(PeakSettings, {"threshold": float("nan")}, "nan, expected at least", id="nan"),
        pytest.param(HeatMapSettings, {"combine": "mean"}, "one of sum, max", id="choice"),
    ],
)
def test_values_of_another_kind_are_refused(kind, values, message):
    with pytest.raises(SettingsError, match=message):
        kind(**values)


def test_whole_numbers_do_for_floats():
    assert PeakSettings(threshold=1).threshold == 1


def test_all_faults_are_named_at_once():
    with pytest.raises(SettingsError, match=r"epochs is -1.*minutes is -1.*seed is -1"):
        TrainSettings(epochs=-1, minutes=-1, seed=-1)


def test_unknown_keys_are_refused_with_the_known_ones():
    with pytest.raises(SettingsError, match=r"unknown ephocs\. Known: cc_weight, epochs,"):
        TrainSettings.from_dict({"ephocs": 3})


def test_defaults_are_those_of_the_paper_where_it_speaks():
    train = TrainSettings()
    assert train.epochs == 300
    assert (train.kld_weight, train.cc_weight, train.nss_weight) == (1, 1, 1)
    assert HeatMapSettings().sigma_frac == 0.02


def test_paper_maps_add_their_gaussians_up():
    assert HeatMapSettings.paper() == HeatMapSettings(sigma_frac=0.02, combine="sum")


def test_paper_peaks_switch_our_additions_off():
    paper = PeakSettings.paper()
    assert (paper.threshold, paper.min_area_frac) == (0.5, 0.0)
    additions = (paper.normalise, paper.subtract_background, paper.split_peaks, paper.snap_to_peak)
    assert not any(additions)


def test_paper_prompter_looks_through_resnet_and_does_not_centre():
    paper = PrompterSettings.paper()
    assert (paper.encoder, paper.mask_mode, paper.centre) == ("resnet50", "faithful", False)


def test_prompter_keeps_as_many_references_as_serve_unless_told():
    assert PrompterSettings().keeps == 5
    assert PrompterSettings(shots=8).keeps == 8
    assert PrompterSettings(shots=3, kept=3).keeps == 3
    assert PrompterSettings(kept=64).keeps == 64


def test_fewer_references_kept_than_serve_are_refused():
    with pytest.raises(SettingsError, match=r"kept is 3, expected at least shots, 5, or 0"):
        PrompterSettings(kept=3)


def test_paper_learns_from_every_reference_as_it_is_and_grows_nothing():
    own = TrainSettings.paper()
    assert (own.learning_rate, own.views, own.shift_frac, own.holdout_frac) == (1e-3, 1, 0, 0)
    assert not AdaptSettings.paper().adapt


def test_paper_takes_the_segmenters_one_answer():
    paper = SegmentSettings.paper()
    assert (paper.mask_choice, paper.tell_apart, paper.drop_covered) == ("single", False, False)


def test_settings_cannot_be_changed_afterwards():
    with pytest.raises(AttributeError):
        PeakSettings().threshold = 0.9
