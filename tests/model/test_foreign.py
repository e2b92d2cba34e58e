"""``cxr import``, compared with torchvision's network."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn

from bad_inputs import Bomb
from conftest import Call
from cxrtool.choices import Fit
from cxrtool.data.images import read
from cxrtool.data.preprocessing import Preprocessing, preprocess
from cxrtool.errors import RequestError
from cxrtool.findings import CHEXPERT5, CHEXPERT14, FINDINGS
from cxrtool.model.bundle import open_bundle, read_header
from cxrtool.model.foreign import ImportSettings, import_checkpoint
from cxrtool.predict.classifier import Classifier


@pytest.fixture(scope="module")
def theirs() -> nn.Module:
    """A DenseNet121 of torchvision whose running statistics are not the initial ones."""
    from torchvision.models import densenet121

    torch.manual_seed(0)
    network = densenet121(weights=None, num_classes=5)
    network.train()
    with torch.no_grad():
        network(torch.rand(4, 3, 64, 64))
    return network.eval()


def in_torchvision(network: nn.Module, path: Path, size: int) -> np.ndarray:
    """Return the probabilities of one image, with the preprocessing of the original scripts."""
    grey = torch.from_numpy(preprocess(read(path).pixels, Preprocessing(size)).astype(np.float32) / 255)
    mean, std = (torch.tensor(values)[:, None, None] for values in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    with torch.no_grad():
        return torch.sigmoid(network(((grey.expand(3, -1, -1) - mean) / std)[None]))[0].numpy()


def predicted(call: Call, model: str, image: Path) -> np.ndarray:
    row = call("predict", image, "--model", model, "--precision", "fp32", "--json").json["predictions"][0]
    return np.array([finding["probability"] for finding in row["findings"]])


def test_an_imported_model_predicts_the_same_as_torchvision(
    theirs: nn.Module, call: Call, phantoms: Path, tmp_path: Path
) -> None:
    torch.save({"epoch": 3, "model_state_dict": theirs.state_dict(), "config": {"lr": 1e-4}}, tmp_path / "best.pt")
    done = call("import", "best.pt", "imported", "--image-size", 64, "--policy", "u-ones")
    assert done.code == 0, done.stderr
    image = min((phantoms / "test").rglob("*frontal.jpg"))
    np.testing.assert_allclose(predicted(call, "imported", image), in_torchvision(theirs, image, 64), atol=1e-6)
    header = read_header(tmp_path / "imported" / "model.safetensors")
    assert (header.policy, header.image_preprocessing.image_size, header.thresholds) == ("u-ones", 64, None)
    assert len(header.training["imported_from_sha256"]) == 64
    assert str(tmp_path) not in header.model_dump_json()
    assert "best.pt" not in header.model_dump_json()
    assert call("info", "imported").code == 0
    assert call("tune", "--model", "imported", "--data", phantoms).code == 0
    assert call("import", "best.pt", "imported").code == 2


def test_findings_in_another_order_are_reordered(theirs: nn.Module, call: Call, phantoms: Path, tmp_path: Path) -> None:
    order = ["Edema", "Pleural Effusion", "Atelectasis", "Consolidation", "Cardiomegaly"]
    torch.save(theirs.state_dict(), tmp_path / "best.pt")
    done = call("import", "best.pt", "a.safetensors", "--image-size", 64, "--findings", ",".join(order).lower())
    assert done.code == 0, done.stderr
    image = min((phantoms / "test").rglob("*frontal.jpg"))
    by_name = dict(zip(order, in_torchvision(theirs, image, 64), strict=True))
    ours = predicted(call, "a.safetensors", image)
    np.testing.assert_allclose(ours, [by_name[finding] for finding in FINDINGS], atol=1e-6)
    for text in ("Edema", "Edema,Edema,Atelectasis,Consolidation,Cardiomegaly"):
        done = call("import", "best.pt", "b.safetensors", "--image-size", 64, "--findings", text)
        assert done.code == 2, done.stderr


def renamed(state: dict[str, Tensor], head: str, prefix: str) -> dict[str, Tensor]:
    return {
        (prefix + name if name.startswith("features") else name.replace("classifier", head)): tensor
        for name, tensor in state.items()
    }


@pytest.mark.parametrize(
    ("key", "prefix", "head"),
    [
        (None, "", "classifier"),
        ("model_state_dict", "module.", "module.classifier"),
        ("state_dict", "model.", "model.classifier.1"),
        ("model", "backbone.", "fc"),
        ("net", "module.backbone.", "module.head.0"),
        ("network", "_orig_mod.", "_orig_mod.classifier"),
    ],
)
def test_usual_keys_prefixes_and_layer_names_are_understood(
    theirs: nn.Module, tmp_path: Path, key: str | None, prefix: str, head: str
) -> None:
    state: Any = renamed(theirs.state_dict(), head, prefix)
    torch.save(state if key is None else {key: state, "optimizer": {"state": {}}}, tmp_path / "best.pt")
    import_checkpoint(tmp_path / "best.pt", tmp_path / "a.safetensors", ImportSettings(image_size=64))
    ours = open_bundle(tmp_path / "a.safetensors").network.state_dict()
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)


def test_half_precision_and_old_torchvision_names_are_understood(theirs: nn.Module, tmp_path: Path) -> None:
    old = {
        name.replace("norm1", "norm.1").replace("conv2.weight", "conv.2.weight"): tensor.half()
        if tensor.is_floating_point()
        else tensor
        for name, tensor in theirs.state_dict().items()
        if "num_batches" not in name
    }
    torch.save(old, tmp_path / "old.pth")
    import_checkpoint(tmp_path / "old.pth", tmp_path / "a.safetensors", ImportSettings())
    ours = open_bundle(tmp_path / "a.safetensors").network
    torch.testing.assert_close(ours.classifier.bias, theirs.classifier.bias.half().float(), rtol=0, atol=0)


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.parametrize("whole", [False, True])
def test_what_a_trainer_adds_is_passed_over_and_code_beside_the_weights_does_not_run(
    theirs: nn.Module, tmp_path: Path, legacy: bool, whole: bool
) -> None:
    optimizer = torch.optim.Adam(theirs.parameters())
    content = {
        "epoch": 3,
        "val_auroc": np.float64(0.83),
        "history": [np.float32(0.1), np.arange(3)],
        "optimizer": optimizer.state_dict(),
        "callback": Bomb(tmp_path / "ran"),
        "model": theirs if whole else theirs.state_dict() | {"criterion.pos_weight": torch.ones(5)},
    }
    torch.save(content, tmp_path / "best.pth.tar", _use_new_zipfile_serialization=not legacy)
    header = import_checkpoint(tmp_path / "best.pth.tar", tmp_path / "a.safetensors", ImportSettings(image_size=64))
    assert not (tmp_path / "ran").exists()
    assert header.training["weights_found_in"] == ("a pickled DenseNet" if whole else "model")
    ours = open_bundle(tmp_path / "a.safetensors").network.state_dict()
    for name, tensor in theirs.state_dict().items():
        torch.testing.assert_close(ours[name], tensor, rtol=0, atol=0)
    torch.load(tmp_path / "best.pth.tar", weights_only=False)  # to prove that the file contains code
    assert (tmp_path / "ran").exists()


def test_a_safetensors_file_and_a_lightning_checkpoint(theirs: nn.Module, tmp_path: Path) -> None:
    state = {f"model.{name}": tensor for name, tensor in theirs.state_dict().items()}
    save_file(state, tmp_path / "a.safetensors")
    torch.save(
        {"state_dict": state | {"loss_fn.pos_weight": torch.ones(5)}, "hyper_parameters": {"lr": 1e-4}, "loops": {}},
        tmp_path / "b.ckpt",
    )
    for name in ("a.safetensors", "b.ckpt"):
        import_checkpoint(tmp_path / name, tmp_path / f"{name}.out.safetensors", ImportSettings(image_size=64))
        ours = open_bundle(tmp_path / f"{name}.out.safetensors").network.state_dict()
        assert all(torch.equal(ours[key], tensor) for key, tensor in theirs.state_dict().items())


def test_some_of_fourteen_outputs_are_kept_under_their_names(
    call: Call, phantoms: Path, theirs: nn.Module, tmp_path: Path
) -> None:
    weight, bias = torch.randn(14, 1024), torch.randn(14)
    torch.save(theirs.state_dict() | {"classifier.weight": weight, "classifier.bias": bias}, tmp_path / "best.pt")
    refused = call("import", "best.pt", "a.safetensors")
    assert refused.code == 2
    assert "has 14 outputs, and does not name them" in refused.stderr
    assert "--findings chexpert14" in refused.stderr
    done = call("import", "best.pt", "a.safetensors", "--findings", "chexpert14", "--keep", "pneumothorax,Edema")
    assert done.code == 0, done.stderr
    ours = open_bundle(tmp_path / "a.safetensors")
    assert ours.header.findings == ("Pneumothorax", "Edema")
    places = [CHEXPERT14.names.index(name) for name in ("Pneumothorax", "Edema")]
    assert torch.equal(ours.network.classifier.weight, weight[places])
    assert torch.equal(ours.network.classifier.bias, bias[places])
    call("import", "best.pt", "b.safetensors", "--findings", "chexpert14", "--keep", "chexpert5")
    assert read_header(tmp_path / "b.safetensors").findings == CHEXPERT5.names
    image = min((phantoms / "test").rglob("*frontal.jpg"))
    shown = call("predict", image, "--model", "a.safetensors", "--json").json["predictions"][0]["findings"]
    assert [one["label"] for one in shown] == ["Pneumothorax", "Edema"]


def test_one_of_several_networks_is_chosen_by_its_prefix(theirs: nn.Module, tmp_path: Path) -> None:
    state = {f"net.{name}": tensor for name, tensor in theirs.state_dict().items()}
    averaged = {f"ema.{name}": tensor * 2 for name, tensor in theirs.state_dict().items()}
    torch.save({"state_dict": state | averaged}, tmp_path / "best.pt")
    with pytest.raises(RequestError, match=r"several networks, named 'ema\.', 'net\.'"):
        import_checkpoint(tmp_path / "best.pt", tmp_path / "a.safetensors", ImportSettings())
    import_checkpoint(tmp_path / "best.pt", tmp_path / "a.safetensors", ImportSettings(prefix="ema."))
    ours = open_bundle(tmp_path / "a.safetensors").network
    assert torch.equal(ours.classifier.bias, theirs.classifier.bias * 2)


class GreyNet(nn.Module):
    """torchxrayvision's classifier as version 1.5.7 has it: one channel, 18 outputs, a sigmoid, operating points."""

    def __init__(self) -> None:
        from torchvision.models import densenet121

        super().__init__()
        inner = densenet121(weights=None, num_classes=18)
        inner.features.conv0 = nn.Conv2d(1, 64, 7, stride=2, padding=3, bias=False)
        self.features, self.classifier = inner.features, inner.classifier
        self.op_threshs: Tensor | None = None
        self.pathologies = [*("Atelectasis", "Effusion", "Pleural_Thickening"), *([""] * 12), "Mass", "Hernia", "Edema"]

    def forward(self, values: Tensor) -> Tensor:
        pooled = nn.functional.relu(self.features(values)).mean(dim=(2, 3))
        return torch.sigmoid(self.classifier(pooled))


def test_a_network_of_torchxrayvision_gives_its_own_probabilities_on_the_centre_of_an_image(
    call: Call, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    network = GreyNet().train()
    with torch.no_grad():
        network(torch.randn(4, 1, 224, 224) * 500)
    network.eval()
    torch.save(network, tmp_path / "chex-densenet121-d121-tw-lr001-best.pt")
    done = call("import", "chex-densenet121-d121-tw-lr001-best.pt", "xrv")
    assert done.code == 0, done.stderr
    assert "operating points of torchxrayvision's weights chex" in done.stdout
    header = read_header(tmp_path / "xrv" / "model.safetensors")
    assert header.findings[:3] == ("Atelectasis", "Consolidation", "Pneumothorax")
    assert len(header.findings) == 11
    pixels = np.random.default_rng(0).integers(0, 256, (224, 300), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "wide.png")
    with torch.no_grad():
        grey = (2 * (pixels[:, 38:262].astype(np.float32) / 255) - 1) * 1024
        expected = network(torch.from_numpy(grey)[None, None])[0].numpy()
    findings = Classifier.load(tmp_path / "xrv").predict(tmp_path / "wide.png").findings
    trained = [0, 1, 3, 4, 7, 8, 10, 14, 15, 16, 17]  # the outputs that its list of labels names
    np.testing.assert_allclose([one.probability for one in findings], expected[trained], atol=1e-5)
    assert findings[0].threshold == pytest.approx(0.1988969)
    for one, raw in zip(findings, expected[trained], strict=True):
        below = raw / (2 * one.threshold)
        above = 1 - (1 - raw) / (2 * (1 - one.threshold))
        assert one.normalised == pytest.approx(below if raw < one.threshold else above, abs=1e-4)
    torch.save(network, tmp_path / "mine.pt")
    call("import", "mine.pt", "mine.safetensors")
    mine = read_header(tmp_path / "mine.safetensors")
    assert mine.findings == ("Atelectasis", "Pleural Effusion", "Pleural Thickening", "Mass", "Hernia", "Edema")
    assert mine.thresholds is None
    assert mine.image_preprocessing == Preprocessing(224, (0.5,), (1 / 2048,), fit=Fit.CROP)


class TestRefused:
    """Nothing is written, and nothing in the file is run."""

    def refuse(self, tmp_path: Path, words: str) -> None:
        with pytest.raises(RequestError, match=words) as caught:
            import_checkpoint(tmp_path / "best.pt", tmp_path / "out" / "a.safetensors", ImportSettings())
        assert "\n" not in caught.value.message
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("legacy", [False, True])
    def test_code_in_a_checkpoint_does_not_run(self, tmp_path: Path, legacy: bool) -> None:
        content = {"model_state_dict": Bomb(tmp_path / "ran")}
        torch.save(content, tmp_path / "best.pt", _use_new_zipfile_serialization=not legacy)
        self.refuse(tmp_path, "contains no weights")
        torch.load(tmp_path / "best.pt", weights_only=False)  # to prove that the file contains code
        assert (tmp_path / "ran").exists()

    def test_a_bare_pickle(self, tmp_path: Path) -> None:
        (tmp_path / "best.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
        self.refuse(tmp_path, "no file of torch.save")

    @pytest.mark.parametrize("kind", ["modules", "keys", "itself"])
    def test_content_that_holds_itself_many_times_over(self, tmp_path: Path, kind: str) -> None:
        content: Any = nn.Linear(1, 1) if kind == "modules" else {"epoch": 1}
        for _ in range(60):
            content = (
                nn.Sequential(content, content) if kind == "modules" else {"model": content, "state_dict": content}
            )
        if kind == "itself":
            content["net"] = content
        torch.save(content, tmp_path / "best.pt")
        self.refuse(tmp_path, "more than 10,000 modules" if kind == "modules" else "no weights")

    def test_another_number_of_outputs(self, theirs: nn.Module, tmp_path: Path) -> None:
        more = {"classifier.weight": torch.zeros(14, 1024), "classifier.bias": torch.zeros(14)}
        torch.save(theirs.state_dict() | more, tmp_path / "best.pt")
        self.refuse(tmp_path, "14 outputs")

    def test_another_network(self, theirs: nn.Module, tmp_path: Path) -> None:
        state = theirs.state_dict()
        cases: list[tuple[dict[str, Any], str]] = [
            ({"features.extra": torch.zeros(1)}, "'features.extra' does not belong"),
            ({"features.conv0.weight": torch.zeros(64, 2, 7, 7)}, "images of 2 channels"),
            ({"features.norm0.weight": torch.zeros(65)}, "shape"),
            ({"classifier.weight": torch.zeros(5, 1664)}, "takes 1664 features"),
            ({"second.weight": torch.zeros(5, 1024)}, "one linear layer"),
            ({"b.features.conv0.weight": torch.zeros(1)}, "several networks"),
            ({"classifier.bias": torch.full((5,), torch.nan)}, "not finite"),
        ]
        for change, words in cases:
            torch.save(state | change, tmp_path / "best.pt")
            self.refuse(tmp_path, words)
        torch.save({name: state[name] for name in list(state)[1:]}, tmp_path / "best.pt")
        self.refuse(tmp_path, "is missing")
        for content in ({"epoch": 3}, [1, 2], torch.zeros(3)):
            torch.save(content, tmp_path / "best.pt")
            self.refuse(tmp_path, "no weights")

    def test_a_zip_bomb(self, theirs: nn.Module, tmp_path: Path) -> None:
        torch.save({"a": torch.zeros(3)}, tmp_path / "plain.pt")
        with zipfile.ZipFile(tmp_path / "plain.pt") as source, zipfile.ZipFile(tmp_path / "best.pt", "w") as target:
            for item in source.infolist():
                target.writestr(item.filename, source.read(item), compress_type=zipfile.ZIP_DEFLATED)
        self.refuse(tmp_path, "unpacks to more")

    def test_incomplete_empty_and_text_files_and_pipes(self, theirs: nn.Module, tmp_path: Path) -> None:
        torch.save(theirs.state_dict(), tmp_path / "whole.pt")
        content = (tmp_path / "whole.pt").read_bytes()
        for broken in (b"", b"text", content[: len(content) // 2], content[:-30]):
            (tmp_path / "best.pt").write_bytes(broken)
            self.refuse(tmp_path, "not a checkpoint|damaged")
        (tmp_path / "best.pt").unlink()
        os.mkfifo(tmp_path / "best.pt")
        self.refuse(tmp_path, "is not a file")
