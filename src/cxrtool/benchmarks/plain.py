"""A plain PyTorch program, as in most notebooks and research scripts, to compare this package with.

Pillow to RGB, torchvision's Resize, ToTensor and Normalize, one image at a time through an eager float32 DenseNet121;
a DataLoader with the same transform and Adam to train; a loop over `iterrows` to read the sheet.
"""

import time
from collections.abc import Callable, Sequence
from itertools import chain, repeat
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.models import densenet121

from cxrtool.findings import FINDINGS
from cxrtool.model.densenet import ChestNet

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def plain_transform(image_size: int) -> Callable[[Image.Image], Tensor]:
    """Return a transform from an RGB image to [3, S, S] float32."""
    steps = [transforms.Resize((image_size, image_size)), transforms.ToTensor(), transforms.Normalize(MEAN, STD)]
    composed: Callable[[Image.Image], Tensor] = transforms.Compose(steps)
    return composed


def plain_network(network: ChestNet) -> nn.Module:
    """Return torchvision's DenseNet121 with the weights of `network`, in eval mode."""
    plain: nn.Module = densenet121(weights=None, num_classes=len(FINDINGS))
    plain.load_state_dict(network.state_dict())
    return plain.eval()


def plain_predict(
    network: nn.Module, paths: Sequence[Path], image_size: int, device: str = "cpu"
) -> NDArray[np.float32]:
    """Return probabilities [N, 5], computed one image at a time."""
    transform = plain_transform(image_size)
    rows = []
    with torch.no_grad():
        for path in paths:
            pixels = transform(Image.open(path).convert("RGB")).unsqueeze(0).to(device)
            rows.append(torch.sigmoid(network(pixels))[0].cpu().numpy())
    return np.stack(rows)


class PlainDataset(Dataset[tuple[Tensor, Tensor]]):
    """Images and targets, read on access."""

    def __init__(self, paths: Sequence[Path], targets: NDArray[np.float32], image_size: int) -> None:
        self.paths, self.targets, self.transform = paths, targets, plain_transform(image_size)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        return self.transform(Image.open(self.paths[index]).convert("RGB")), torch.from_numpy(self.targets[index])


def plain_training_rate(
    paths: Sequence[Path],
    targets: NDArray[np.float32],
    image_size: int,
    batch_size: int,
    workers: int,
    device: str = "cpu",
    epochs: int = 1,
) -> float:
    """Return images per second of training in float32 on a CPU, with AMP in bf16 on a GPU.

    Of one epoch the steps after the first are timed, of several all but the first epoch.
    """
    network = densenet121(weights=None, num_classes=len(FINDINGS)).to(device).train()
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-4)
    loss_of = nn.BCEWithLogitsLoss()
    on_gpu = device == "cuda"
    loader = DataLoader(
        PlainDataset(paths, targets, image_size),
        batch_size,
        shuffle=True,
        num_workers=workers,
        pin_memory=on_gpu,
        persistent_workers=epochs > 1,
    )
    skipped = len(loader) if epochs > 1 else 1
    began, images = 0.0, 0
    for step, (pixels, labels) in enumerate(chain.from_iterable(repeat(loader, epochs)), start=1):
        with torch.autocast(device, torch.bfloat16, enabled=on_gpu):
            loss = loss_of(network(pixels.to(device)), labels.to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        loss.item()  # notebooks print the loss at each step
        if step > skipped:
            images += len(pixels)
        elif step == skipped:
            began = time.perf_counter()
    return images / (time.perf_counter() - began)


def plain_manifest(sheet: Path) -> list[tuple[str, list[float]]]:
    """Return path and five labels of each frontal row, with NaN for uncertain ones, read by `iterrows`."""
    rows = []
    for _, row in pd.read_csv(sheet).iterrows():
        if row["Frontal/Lateral"] != "Frontal":
            continue
        labels = []
        for finding in FINDINGS:
            value = row[finding]
            labels.append(float("nan") if value == -1 else 0.0 if pd.isna(value) else float(value))
        rows.append((str(row["Path"]), labels))
    return rows
