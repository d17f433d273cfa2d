"""Settings to a form and back."""

import pytest

pytest.importorskip("qtpy")
from qtpy.QtCore import QPoint, QPointF, Qt
from qtpy.QtGui import QWheelEvent
from qtpy.QtWidgets import QApplication, QLabel

from napari_samic.core import settings as rooms
from napari_samic.core.errors import SettingsError
from napari_samic.core.settings import (
    HeatMapSettings,
    PeakSettings,
    PrompterSettings,
    SegmentSettings,
    TrainSettings,
)
from napari_samic.gui.widgets.field_specs import entries, fault_of, read_number, text_of
from napari_samic.gui.widgets.settings_form import SettingsForm
from napari_samic.recipes.schema import STEP_SCHEMAS

ALL = [
    kind for kind in vars(rooms).values()
    if isinstance(kind, type) and issubclass(kind, rooms.Settings) and kind is not rooms.Settings
]  # fmt: skip


@pytest.fixture
def form(qtbot):
    def make(*kinds, **more):
        made = SettingsForm(*kinds, **more)
        qtbot.addWidget(made)
        return made

    return make


@pytest.mark.parametrize("kind", ALL, ids=lambda k: k.__name__)
def test_every_setting_has_a_field_that_gives_the_default_back(form, kind):
    made = form(kind)
    assert list(made.fields) == [spec.name for spec in rooms.public_fields(kind)]
    assert made.values(kind) == kind()


@pytest.mark.parametrize("values", [
    pytest.param(PeakSettings.paper(), id="bools_and_floats"),
    pytest.param(HeatMapSettings(1 / 3, "sum"), id="choice_and_a_long_float"),
    pytest.param(PrompterSettings("path:/a b/c.pt", "weighted", False, 7), id="texts"),
    pytest.param(TrainSettings(12, 1e-8, minutes=1e-6, views=4, seed=99), id="small_numbers"),
])  # fmt: skip
def test_values_come_back_as_they_were_shown(form, values):
    made = form(type(values))
    made.show_values(values)
    assert made.values(type(values)) == values


def test_several_kinds_share_a_form(form):
    made = form(SegmentSettings, PeakSettings, basic=("threshold", "instances"))
    made.fields["threshold"].editor.setText("0,45")
    made.fields["instances"].editor.setChecked(False)
    assert made.values(PeakSettings) == PeakSettings(threshold=0.45)
    assert made.values(SegmentSettings) == SegmentSettings(instances=False)


@pytest.mark.parametrize(("text", "told"), [
    pytest.param("2", "At most 1.0 expected", id="above"),
    pytest.param("-1", "At least 0.0 expected", id="below"),
    pytest.param("much", "A number expected", id="no_number"),
    pytest.param("", "A number expected", id="empty"),
    pytest.param("nan", "At least 0.0 expected", id="nan"),
])  # fmt: skip
def test_error_stands_at_its_field_and_goes_with_it(form, text, told):
    made = form(PeakSettings)
    field = made.fields["threshold"]
    field.editor.setText(text)
    assert (field.error.text(), field.error.isHidden()) == (told, False)
    assert not made.is_sound
    with pytest.raises(SettingsError, match=f"Threshold: {told}"):
        made.values(PeakSettings)
    assert made.fields["min_area_frac"].error.isHidden()
    field.editor.setText("0.5")
    assert field.error.isHidden()
    assert made.values(PeakSettings).threshold == 0.5


def test_wrong_field_that_is_folded_away_is_unfolded(form):
    made = form(PeakSettings, basic=("threshold",))
    assert made.advanced.isHidden()
    made.fields["min_area_frac"].editor.setText("-7")
    with pytest.raises(SettingsError, match="Least area: At least 0"):
        made.values(PeakSettings)
    assert not made.advanced.isHidden()


def test_only_the_basic_settings_are_outside_the_folded_part(form):
    made = form(TrainSettings, basic=("epochs", "minutes"))
    shown = [n for n, f in made.fields.items() if not made.advanced.isAncestorOf(f.editor)]
    assert shown == ["epochs", "minutes"]
    assert made.more.text() == "Advanced"
    made.fields["seed"].editor.setValue(5)
    assert made.more.text() == "Advanced (1 changed)"


def test_folded_settings_are_found_by_typing(form, qtbot):
    made = form(*STEP_SCHEMAS["segment"].groups.values(), basic=("threshold",))
    qtbot.addWidget(made)
    made.show()
    made.more.click()
    headings = sum(label.isVisible() for label in made.advanced.findChildren(QLabel))
    made.search.setText("HOLES")
    visible = [name for name, field in made.fields.items() if field.editor.isVisible()]
    assert visible == ["threshold", "fill_px"]
    assert sum(label.isVisible() for label in made.advanced.findChildren(QLabel)) == 2 < headings
    made.fields["smooth_px"].editor.setValue(3)
    made.fields["map_cut"].editor.setText("9")
    with pytest.raises(SettingsError, match="Cut of the map"):
        made.values(SegmentSettings)
    assert made.fields["map_cut"].editor.isVisible()  # what is wrong is seen


def test_reset_puts_all_defaults_back_and_tells_once(form, qtbot):
    made = form(PeakSettings)
    assert not made.defaults.isEnabled()
    made.show_values(PeakSettings.paper())
    assert made.defaults.isEnabled()
    heard = []
    made.changed.connect(lambda: heard.append(made.values(PeakSettings)))
    made.defaults.click()
    assert heard == [PeakSettings()]
    assert not made.defaults.isEnabled()


def test_each_edit_is_told(form):
    made, heard = form(TrainSettings), []
    made.changed.connect(lambda: heard.append(made.values(TrainSettings)))
    made.fields["epochs"].editor.setValue(7)
    made.fields["seed"].editor.setValue(4)
    assert heard == [TrainSettings(epochs=7), TrainSettings(epochs=7, seed=4)]


def test_settings_that_do_not_fit_each_other_are_not_sound(form):
    made = form(PrompterSettings)
    made.fields["kept"].editor.setValue(3)
    assert made.fields["kept"].error.isHidden()  # 3 is a number that may be
    assert not made.is_sound
    with pytest.raises(SettingsError, match="kept is 3, expected at least shots"):
        made.values(PrompterSettings)
    made.fields["shots"].editor.setValue(3)
    assert made.is_sound
    assert made.values(PrompterSettings) == PrompterSettings(shots=3, kept=3)


def test_settings_that_are_not_shown_stay_as_they_were_given(form):
    made = form(SegmentSettings)
    assert "tell_apart" not in made.fields
    made.show_values(SegmentSettings(tell_apart=False))
    made.fields["min_score"].editor.setText("0.5")
    assert made.values(SegmentSettings) == SegmentSettings(tell_apart=False, min_score=0.5)
    made.reset()
    assert made.values(SegmentSettings) == SegmentSettings()


def test_bounds_units_and_help_are_in_the_field(form):
    made = form(rooms.AnnotateSettings)
    spin = made.fields["max_clicks"].editor
    assert (spin.minimum(), spin.maximum()) == (1, 100)
    assert made.fields["min_object_px"].editor.suffix() == " px"
    tip = made.fields["target_iou"].editor.toolTip()
    assert "(0 to 1." in tip
    assert "Default: 0.95" in tip


@pytest.mark.parametrize("kind", ALL, ids=lambda k: k.__name__)
def test_every_setting_has_help_and_a_default_without_fault(kind):
    for entry in entries(kind):
        assert entry.help
        assert fault_of(entry, entry.default) == ""


@pytest.mark.parametrize("value", [0.1, 1e-8, 1 / 3, 123456.75, 0.02])
def test_number_survives_being_text(value):
    assert read_number(text_of(value)) == value


def test_wheel_over_a_field_without_focus_changes_nothing(form):
    made = form(TrainSettings)
    spin = made.fields["epochs"].editor
    place = QPointF(5, 5)
    event = QWheelEvent(
        place, place, QPoint(0, 120), QPoint(0, 120), Qt.MouseButton.NoButton,
        Qt.KeyboardModifier.NoModifier, Qt.ScrollPhase.NoScrollPhase, False,
    )  # fmt: skip
    QApplication.sendEvent(spin, event)
    assert spin.value() == TrainSettings().epochs
