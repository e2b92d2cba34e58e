"""Compare an imported network of torchxrayvision with that library's own forward pass and scores.

Usage: python benchmarks/against_torchxrayvision.py DATA FOLDER

DATA is a folder in CheXpert's layout, such as ../shared/nih-sample; its test images are read. FOLDER is where the wheel
of torchxrayvision 1.5.7 was unpacked (``pip download torchxrayvision==1.5.7 --no-deps``). Its DenseNet gets random
weights and the batch statistics of the images, is saved as its published weights are, a whole pickled network, and
imported. Both then read the same pixels: the image reader and resizing of cxrtool, on each centre square.
"""

import argparse
import importlib
import sys
import tempfile
import types
from pathlib import Path

import numpy as np
import torch

from cxrtool.data.dataset import Dataset
from cxrtool.data.radiograph import read_pixels
from cxrtool.model.bundle import open_bundle
from cxrtool.model.foreign import ImportSettings, import_checkpoint
from cxrtool.predict.classifier import Classifier
from cxrtool.settings import DataSettings, RuntimeSettings


def their_models(folder: Path) -> types.ModuleType:
    """Return torchxrayvision.models without the library's other modules, whose dependencies are not needed here."""
    package = types.ModuleType("torchxrayvision")
    package.__path__ = [str(folder / "torchxrayvision")]
    datasets, utils, requests = (types.ModuleType(name) for name in ("datasets", "utils", "requests"))
    datasets.default_pathologies = [None] * 18  # only their number is used
    package.datasets, package.utils = datasets, utils
    sys.modules |= {
        "torchxrayvision": package,
        "torchxrayvision.datasets": datasets,
        "torchxrayvision.utils": utils,
        "requests": requests,
    }
    return importlib.import_module("torchxrayvision.models")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    theirs = their_models(given.folder)
    manifest = Dataset(DataSettings(root=given.data), ("test",)).usable("test")
    files = [manifest.file(row) for row in range(len(manifest))]
    torch.manual_seed(0)
    network = theirs.DenseNet(apply_sigmoid=True)
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "chex-densenet121-d121-tw-lr001-rot45-tr15-sc15-seed0-best.pt"
        torch.save(network, file)
        import_checkpoint(file, Path(place) / "first.safetensors", ImportSettings())
        preprocessing = open_bundle(Path(place) / "first.safetensors").header.image_preprocessing
        pixels = np.stack([read_pixels(one, preprocessing) for one in files]).astype(np.float32)
        grey = torch.from_numpy((2 * (pixels / 255) - 1) * 1024)[:, None]
        with torch.no_grad():
            network.train()
            network(grey[:32])
            network.eval()
            expected = network(grey)
        torch.save(network, file)
        header = import_checkpoint(file, Path(place) / "model.safetensors", ImportSettings())
        settings = RuntimeSettings(precision="fp32", backend="torch")
        classifier = Classifier.load(Path(place) / "model.safetensors", settings=settings)
        predictions = list(classifier.predict_many(files))
    points = torch.tensor(theirs.model_urls["chex"]["op_threshs"])
    scores = theirs.op_norm(expected, points)
    trained = (~torch.isnan(points)).nonzero()[:, 0].tolist()
    ours = np.array([[one.probability for one in prediction.findings] for prediction in predictions])
    normalised = np.array([[one.normalised for one in prediction.findings] for prediction in predictions])
    print(f"{len(files)} images, {len(header.findings)} findings: {', '.join(header.findings)}")
    print(f"probabilities from {ours.min():.3f} to {ours.max():.3f}")
    print(f"largest difference of a probability: {np.abs(ours - expected[:, trained].numpy()).max():.1e}")
    print(f"largest difference of a normalised score: {np.abs(normalised - scores[:, trained].numpy()).max():.1e}")


if __name__ == "__main__":
    main()
