"""``cxr import``, compared with torchvision's network."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bad_inputs import Bomb
from conftest import Call
from cxrtool.data.images import read
from cxrtool.data.preprocessing import Preprocessing, preprocess
from cxrtool.errors import ModelError
from cxrtool.findings import FINDINGS
from cxrtool.model.bundle import open_bundle, read_header
from cxrtool.model.foreign import ImportSettings, import_checkpoint


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


class TestRefused:
    """Nothing is written, and nothing in the file is run."""

    def refuse(self, tmp_path: Path, words: str) -> None:
        with pytest.raises(ModelError, match=words) as caught:
            import_checkpoint(tmp_path / "best.pt", tmp_path / "out" / "a.safetensors", ImportSettings())
        assert "\n" not in caught.value.message
        assert not (tmp_path / "out").exists()
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("forced", ["0", "1"])
    @pytest.mark.parametrize("legacy", [False, True])
    def test_code_in_a_checkpoint_does_not_run(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forced: str, legacy: bool
    ) -> None:
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", forced)
        content = {"model_state_dict": Bomb(tmp_path / "ran")}
        torch.save(content, tmp_path / "best.pt", _use_new_zipfile_serialization=not legacy)
        self.refuse(tmp_path, "older ones can contain code" if legacy else "nothing of it was run")
        torch.load(tmp_path / "best.pt", weights_only=False)  # to prove that the file contains code
        assert (tmp_path / "ran").exists()

    def test_a_bare_pickle_and_a_whole_network(self, theirs: nn.Module, tmp_path: Path) -> None:
        (tmp_path / "best.pt").write_bytes(pickle.dumps(Bomb(tmp_path / "ran")))
        self.refuse(tmp_path, "older ones can contain code")
        torch.save(theirs, tmp_path / "best.pt")
        self.refuse(tmp_path, "more than weights")

    def test_another_number_of_outputs(self, theirs: nn.Module, tmp_path: Path) -> None:
        more = {"classifier.weight": torch.zeros(14, 1024), "classifier.bias": torch.zeros(14)}
        torch.save(theirs.state_dict() | more, tmp_path / "best.pt")
        self.refuse(tmp_path, "14 outputs")

    def test_another_network(self, theirs: nn.Module, tmp_path: Path) -> None:
        state = theirs.state_dict()
        cases: list[tuple[dict[str, Any], str]] = [
            ({"features.extra": torch.zeros(1)}, "'features.extra' does not belong"),
            ({"features.conv0.weight": torch.zeros(64, 1, 7, 7)}, "shape"),
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
            self.refuse(tmp_path, "no state dict")

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

    def test_an_unsafe_version_of_torch(
        self, theirs: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        torch.save(theirs.state_dict(), tmp_path / "best.pt")
        monkeypatch.setattr(torch, "__version__", "2.5.1+cpu")
        self.refuse(tmp_path, "CVE-2025-32434")
