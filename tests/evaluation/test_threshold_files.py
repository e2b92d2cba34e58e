import json
from pathlib import Path

import pytest

from cxrtool.errors import RequestError
from cxrtool.evaluation.threshold_files import parse_thresholds


def test_thresholds_as_text_and_as_files(tmp_path: Path) -> None:
    values = {"Atelectasis": 0.46, "Cardiomegaly": 0.11, "Consolidation": 0.47, "Edema": 0.34, "Pleural Effusion": 0.37}
    assert parse_thresholds("0.46,0.11,0.47,0.34,0.37") == values
    assert parse_thresholds("edema=0.3, Pleural Effusion = 0.2") == {"Edema": 0.3, "Pleural Effusion": 0.2}
    (tmp_path / "t.json").write_text(json.dumps({"thresholds": values}))
    assert parse_thresholds(str(tmp_path / "t.json")) == values
    (tmp_path / "t.csv").write_text("finding,threshold\n" + "".join(f"{k},{v}\n" for k, v in values.items()))
    assert parse_thresholds(str(tmp_path / "t.csv")) == values


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("0.1,0.2", "2 numbers"),
        ("0.1,0.2,x,0.4,0.5", "'x'"),
        ("0.1,0.2,1.5,0.4,0.5", "1.5"),
        ("Edma=0.3", "Edma"),
        ("no.json", "no.json"),
    ],
)
def test_wrong_thresholds_are_refused(text: str, word: str) -> None:
    with pytest.raises(RequestError, match=word):
        parse_thresholds(text)
