import pytest

from cxrtool.choices import Layer, Method
from cxrtool.errors import RequestError
from cxrtool.explain.methods import fitting_layer
from cxrtool.settings import ExplainSettings
from cxrtool.tasks.localize import parse_methods


def test_methods_with_and_without_a_layer() -> None:
    first, second = parse_methods("grad-cam, layer-cam@denseblock2", ExplainSettings(), 320)
    assert (first.method, first.layer) == (Method.GRAD_CAM, fitting_layer(320))
    assert (second.method, second.layer) == (Method.LAYER_CAM, Layer("denseblock2"))
    assert second.smooth == first.smooth == ExplainSettings().smooth


@pytest.mark.parametrize(("text", "word"), [("grad-cma", "grad-cma"), ("grad-cam@denseblock9", "denseblock9")])
def test_an_unknown_method_or_layer_is_refused(text: str, word: str) -> None:
    with pytest.raises(RequestError, match=word):
        parse_methods(text, ExplainSettings(), 320)
