from pathlib import Path

import pytest

from cxrtool.choices import Layer, Method
from cxrtool.errors import RequestError
from cxrtool.evaluation.localization import MAP_THRESHOLDS
from cxrtool.explain.methods import fitting_layer
from cxrtool.resolved_settings import load_settings
from cxrtool.settings import ExplainSettings
from cxrtool.tasks.localize import localize_model, parse_methods


def test_methods_with_and_without_a_layer() -> None:
    first, second = parse_methods("grad-cam, layer-cam@denseblock2", ExplainSettings(), 320)
    assert (first.method, first.layer) == (Method.GRAD_CAM, fitting_layer(320))
    assert (second.method, second.layer) == (Method.LAYER_CAM, Layer("denseblock2"))
    assert second.smooth == first.smooth == ExplainSettings().smooth


@pytest.mark.parametrize(("text", "word"), [("grad-cma", "grad-cma"), ("grad-cam@denseblock9", "denseblock9")])
def test_an_unknown_method_or_layer_is_refused(text: str, word: str) -> None:
    with pytest.raises(RequestError, match=word):
        parse_methods(text, ExplainSettings(), 320)


def test_thresholds_of_maps_are_never_chosen_on_the_measured_split(phantoms: Path, run: Path) -> None:
    for split in ("valid", "test"):
        chosen = {"data.root": phantoms, "localize.split": split, "localize.methods": "grad-cam", "eval.draws": 10}
        result = localize_model(run, load_settings(chosen, environ={}).settings)
        (method,) = result.methods.values()
        cuts = {one.map_threshold for one in method.figures.values() if one.images}
        if split == "valid":
            assert cuts == {None}, "Otsu's, whose threshold depends on no label"
            assert "no other split" in result.warnings[0]
        else:
            assert cuts - {None} <= set(MAP_THRESHOLDS.tolist())
            assert cuts != {None}
