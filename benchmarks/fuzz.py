"""Fuzz every reader of untrusted files: anything but the reader's own error counts as a finding.

    python benchmarks/fuzz.py image --seconds 200 --out findings
    python benchmarks/fuzz.py dicom bundle sheet checkpoint --seconds 60 --out findings

Valid files are mutated: bits, bytes, numbers at their limits, cuts, insertions, splices of two files. Checksums of PNGs
are usually corrected, so that the code behind them is reached. Each input is read in a child process with limited
memory and time. A crash, a hang, a failed allocation and any other exception are findings, and so is an input that
takes more memory or processor time than the budget of a small file; their bytes are saved under the reader's name and a
digest. The largest memory and time of one input are printed.
"""

import argparse
import contextlib
import hashlib
import io
import json
import os
import random
import resource
import signal
import struct
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Callable
from pathlib import Path

MEMORY = 6 * 2**30
SECONDS_PER_INPUT = 10
BUDGET_MIB, BUDGET_SECONDS = 64, 2
"""Memory beyond the size of one input, and processor time, that reading it may take."""
EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


Mutate = Callable[[list[bytes], random.Random], bytes]


class Hung(BaseException):
    """Raised when one input takes too long."""


def image_seeds() -> list[bytes]:
    import numpy as np
    from PIL import Image

    rows, columns = np.mgrid[:64, :48]
    grey = Image.fromarray(((np.sin(rows / 9) + np.cos(columns / 7) + 2) * 60).astype(np.uint8))
    deep = Image.fromarray(np.asarray(grey).astype(np.uint16) * 200)
    exif = Image.Exif()
    exif[0x0112] = 6
    variants: list[tuple[str, str, dict[str, object]]] = [
        ("JPEG", "L", {}),
        ("JPEG", "RGB", {"progressive": True, "exif": exif, "comment": b"c"}),
        ("JPEG", "CMYK", {}),
        ("PNG", "L", {"exif": exif}),
        ("PNG", "RGBA", {}),
        ("PNG", "P", {"transparency": 0}),
        ("PNG", "1", {}),
        ("BMP", "L", {}),
        ("BMP", "RGB", {}),
        ("TIFF", "L", {"exif": exif}),
        ("TIFF", "L", {"compression": "tiff_lzw"}),
        ("TIFF", "RGB", {"compression": "tiff_adobe_deflate"}),
        ("TIFF", "1", {"compression": "group4"}),
        ("TIFF", "RGB", {"compression": "jpeg"}),
        ("WEBP", "RGB", {"lossless": True}),
        ("WEBP", "RGBA", {}),
    ]
    seeds = []
    for kind, mode, options in variants:
        buffer = io.BytesIO()
        grey.convert(mode).save(buffer, format=kind, **options)
        seeds.append(buffer.getvalue())
    for kind in ("PNG", "TIFF"):
        buffer = io.BytesIO()
        deep.save(buffer, format=kind)
        seeds.append(buffer.getvalue())
    return seeds


def dicom_seeds() -> list[bytes]:
    import numpy as np
    from pydicom import Dataset
    from pydicom.sequence import Sequence
    from pydicom.uid import ImplicitVRLittleEndian, JPEG2000Lossless, JPEGLosslessSV1, JPEGLSLossless, RLELossless

    sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
    from tests_support import dicom_of

    values = (np.arange(64 * 48).reshape(64, 48) % 4096).astype(np.uint16)
    table = Dataset()
    table.LUTDescriptor = [4096, 0, 16]
    table.LUTData = (65535 - np.arange(4096) * 16).astype(np.uint16).tobytes()
    made = [
        dicom_of(values),
        dicom_of((values % 200).astype(np.uint8), PhotometricInterpretation="MONOCHROME1"),
        dicom_of(values, RescaleSlope=2, RescaleIntercept=-10, WindowCenter=[500, 900], WindowWidth=[1000, 1000]),
        dicom_of(values, VOILUTSequence=Sequence([table])),
        dicom_of(np.repeat((values % 200).astype(np.uint8)[..., None], 3, axis=2)),
    ]
    implicit = dicom_of(values)
    implicit.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian
    made.append(implicit)
    for syntax in (RLELossless, JPEG2000Lossless, JPEGLSLossless):
        packed = dicom_of(values)
        try:
            packed.compress(syntax)
        except (RuntimeError, NotImplementedError, ValueError):
            continue
        made.append(packed)
    frame = next((seed for seed in image_seeds() if seed[:3] == b"\xff\xd8\xff"), b"")
    for syntax in ("1.2.840.10008.1.2.4.50", JPEGLosslessSV1):
        from pydicom.encaps import encapsulate

        packed = dicom_of((values % 200).astype(np.uint8))
        packed.file_meta.TransferSyntaxUID = syntax
        packed.PixelData = encapsulate([frame])
        packed["PixelData"].is_undefined_length = True
        made.append(packed)
    seeds = []
    for dataset in made:
        buffer = io.BytesIO()
        dataset.save_as(buffer, enforce_file_format=True)
        seeds.append(buffer.getvalue())
    return seeds


def bundle_seeds() -> list[bytes]:
    import torch
    from safetensors.torch import save

    from cxrtool.choices import Blank
    from cxrtool.data.preprocessing import Preprocessing
    from cxrtool.files import to_json
    from cxrtool.findings import FINDINGS
    from cxrtool.model.header import BundleHeader

    header = BundleHeader(
        findings=FINDINGS,
        preprocessing=Preprocessing(32).to_dict(),
        policy="u-ignore",
        blank=Blank.NEGATIVE,
        views="frontal",
        thresholds=dict.fromkeys(FINDINGS, 0.5),
        training={"epochs": 1},
        data={},
        pos_weight=None,
        metrics={},
        versions={},
        run="r",
        created="2026-01-01T00:00:00+00:00",
    )
    tensors = {"features.conv0.weight": torch.zeros(4, 1, 3, 3), "classifier.bias": torch.zeros(5)}
    text = to_json(header.model_dump(mode="json"))
    return [save(tensors, metadata={"cxrtool": text}), save(tensors, metadata={"other": "x"}), save(tensors)]


def sheet_seeds() -> list[bytes]:
    from cxrtool.findings import FINDINGS

    head = "Path,Sex,Age,Frontal/Lateral,AP/PA," + ",".join(FINDINGS)
    row = "train/patient00042/study1/view1_frontal.jpg,Male,60,Frontal,AP,1.0,0.0,-1.0,,1.0"
    plain = "\n".join([head, *[row] * 4]) + "\n"
    quoted = "\r\n".join([head, *[f'"{row.replace(",", chr(34) + ",", 1)}'] * 4])
    return [text.encode("utf-8") for text in (plain, quoted, "\ufeff" + plain)]


def checkpoint_seeds() -> list[bytes]:
    import torch

    seeds = []
    for content in (
        {"classifier.weight": torch.zeros(5, 4), "classifier.bias": torch.zeros(5)},
        {"model_state_dict": {"module.classifier.weight": torch.zeros(5, 4)}, "epoch": 3, "config": {"a": [1, "b"]}},
    ):
        buffer = io.BytesIO()
        torch.save(content, buffer)
        seeds.append(buffer.getvalue())
    return seeds


def read_image(path: Path) -> None:
    import numpy as np

    from cxrtool.data.preprocessing import Preprocessing
    from cxrtool.data.radiograph import Reading, read_radiograph
    from cxrtool.errors import ImageError
    from cxrtool.settings import Limits

    # Few pixels, so that the budget is that of the structure: 64 megapixels alone take more.
    reading = Reading(Preprocessing(32), 1, full_size=True, limits=Limits(megapixels=4))
    try:
        pixels = read_radiograph(path, reading).image
    except ImageError as error:
        if "memory" in error.message:
            raise
        if "\n" in error.message:
            raise AssertionError(f"message with several lines: {error.message!r}") from None
        return
    assert pixels.dtype == np.uint8
    assert pixels.ndim == 2
    assert min(pixels.shape) > 0


def read_bundle(path: Path) -> None:
    from cxrtool.errors import ModelError
    from cxrtool.model.bundle import open_bundle

    try:
        open_bundle(path)
    except ModelError as error:
        if "\n" in error.message:
            raise AssertionError(f"message with several lines: {error.message!r}") from None


def read_sheet(path: Path) -> None:
    from cxrtool.choices import Views
    from cxrtool.data.dataset import missing_images
    from cxrtool.data.manifest import load_manifest
    from cxrtool.errors import RequestError

    path.replace(path.parent / "train.csv")
    try:
        missing_images(load_manifest(path.parent, "train", Views.ALL))
    except RequestError as error:
        if "\n" in error.message:
            raise AssertionError(f"message with several lines: {error.message!r}") from None


def read_checkpoint(path: Path) -> None:
    from cxrtool.errors import ModelError
    from cxrtool.model.foreign import read_checkpoint as read_foreign

    try:
        read_foreign(path)
    except ModelError as error:
        if "\n" in error.message:
            raise AssertionError(f"message with several lines: {error.message!r}") from None


def mutated(seeds: list[bytes], rng: random.Random) -> bytes:
    """Return a valid file with a few mutations."""
    content = bytearray(rng.choice(seeds))
    # Headers matter more than pixels: half of the changes fall into the first kilobyte.
    for _ in range(rng.choice((1, 1, 2, 3, 6))):
        most = len(content) if rng.random() < 0.5 else min(len(content), 1024)
        place = rng.randrange(max(most, 1))
        kind = rng.randrange(8)
        if kind == 0 and content:
            content[place] ^= 1 << rng.randrange(8)
        elif kind == 1 and content:
            content[place] = rng.randrange(256)
        elif kind == 2:
            size, order = rng.choice("BHIQ"), rng.choice("<>")
            number = rng.choice(EDGES) & (2 ** (8 * struct.calcsize(size)) - 1)
            content[place : place + struct.calcsize(size)] = struct.pack(order + size, number)
        elif kind == 3:
            del content[place : place + rng.choice((1, 2, 4, 16, 200))]
        elif kind == 4:
            content[place:place] = rng.randbytes(rng.choice((1, 2, 4, 16, 200)))
        elif kind == 5:
            other = rng.choice(seeds)
            start = rng.randrange(len(other))
            content[place : place + 64] = other[start : start + 64]
        elif kind == 6:
            piece = content[place : place + rng.choice((4, 12, 64))]
            content[place:place] = piece * rng.choice((1, 2, 50))
        elif rng.random() < 0.3:
            del content[place:]
    if content[:8] == b"\x89PNG\r\n\x1a\n" and rng.random() < 0.7:
        correct_checksums(content)
    return bytes(content)


def correct_checksums(content: bytearray) -> None:
    """Write the correct checksum of each PNG chunk."""
    place = 8
    while place + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, place)
        end = place + 8 + length
        if end + 4 > len(content):
            return
        struct.pack_into(">I", content, end, zlib.crc32(content[place + 4 : end]))
        place = end + 4


def with_its_digest(seeds: list[bytes], rng: random.Random) -> bytes:
    """Return a bundle with a mutated header and the matching digest, so that the code behind the digest is reached."""
    if rng.random() < 0.3:
        return mutated(seeds, rng)
    content = seeds[0]
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    text = mutated([header["__metadata__"]["cxrtool"].encode()], rng).decode("utf-8", errors="replace")
    header["__metadata__"] = {"cxrtool": text, "cxrtool-sha256": hashlib.sha256(text.encode()).hexdigest()}
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + content[8 + length :]


READERS: dict[str, tuple[Callable[[], list[bytes]], Callable[[Path], None], Mutate]] = {
    "image": (image_seeds, read_image, mutated),
    "dicom": (dicom_seeds, read_image, mutated),
    "bundle": (bundle_seeds, read_bundle, with_its_digest),
    "sheet": (sheet_seeds, read_sheet, mutated),
    "checkpoint": (checkpoint_seeds, read_checkpoint, mutated),
}


class Meter:
    """Measures the memory and the processor time of one input at a time, and keeps the largest."""

    def __init__(self) -> None:
        self.mib = self.seconds = 0.0

    def begin(self) -> None:
        """Begin with an input."""
        with contextlib.suppress(OSError):  # not Linux: only growth above the largest input so far is seen
            Path("/proc/self/clear_refs").write_text("5")  # the peak becomes what is resident now
        self._before, self._began = _peak_mib(), time.process_time()

    def end(self, content: bytes) -> str:
        """Return what the input took too much of, or nothing."""
        seconds = time.process_time() - self._began
        mib = _peak_mib() - self._before
        self.mib, self.seconds = max(self.mib, mib), max(self.seconds, seconds)
        over = [f"{mib:.0f} MiB"] * (mib > BUDGET_MIB + len(content) / 2**20)
        over += [f"{seconds:.1f} CPU s"] * (seconds > BUDGET_SECONDS)
        return " and ".join(over)


def _peak_mib() -> float:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def child(reader: str, seconds: float, seed: int, folder: Path) -> None:
    """Read mutated files until the time is up; print one line of JSON per finding, and a count at the end."""
    make, read, mutate = READERS[reader]
    seeds = make()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))

    def hung(_number: int, _frame: object) -> None:
        raise Hung

    signal.signal(signal.SIGALRM, hung)
    for content in seeds:  # imports what is imported at first use, which no input should be charged with
        (folder / "current").write_bytes(content)
        read(folder / "current")
    rng, count, ends = random.Random(seed), 0, time.monotonic() + seconds
    known: set[str] = set()
    meter = Meter()
    while time.monotonic() < ends:
        path = folder / "current"
        path.write_bytes(content := mutate(seeds, rng))
        (folder / "kept").write_bytes(content)
        count += 1
        try:
            signal.alarm(SECONDS_PER_INPUT)
            meter.begin()
            read(path)
        except (Exception, Hung) as error:  # noqa: BLE001 - any exception is a finding
            where = traceback.extract_tb(error.__traceback__)[-1]
            key = f"{type(error).__name__} at {Path(where.filename).name}:{where.lineno}"
            if key not in known:
                known.add(key)
                print(json.dumps({"key": key, "message": str(error)[:300], "bytes": content.hex()}), flush=True)
        finally:
            signal.alarm(0)
        over = meter.end(content)
        if over and "budget" not in known:
            known.add("budget")
            print(json.dumps({"key": "over the budget", "message": over, "bytes": content.hex()}), flush=True)
        if count % 200 == 0:
            (folder / "count").write_text(str(count))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    done = {"count": count, "peak_mib": peak, "input_mib": meter.mib, "input_seconds": meter.seconds}
    print(json.dumps(done), flush=True)


def fuzz(reader: str, seconds: float, seed: int, out: Path) -> None:
    """Run children until the time is up. A child that dies is a finding, and the next one continues."""
    ends, total, peak, findings = time.monotonic() + seconds, 0, 0, {}
    mib = cpu = 0.0
    while (left := ends - time.monotonic()) > 1:
        with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as name:
            folder = Path(name)
            command = [sys.executable, __file__, reader, "--child", "--seconds", str(left), "--seed", str(seed)]
            try:
                done = subprocess.run(
                    [*command, "--out", name],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL,
                    text=True,
                    timeout=left + 60,
                    check=False,
                    env={**os.environ, "OMP_NUM_THREADS": "1"},
                )
                ended, lines = done.returncode, done.stdout.splitlines()
            except subprocess.TimeoutExpired as late:
                ended, lines = -99, (late.stdout or b"").decode().splitlines()
            reports = [json.loads(line) for line in lines]
            for one in reports:
                if "key" in one:
                    findings.setdefault(one["key"], (one["message"], bytes.fromhex(one["bytes"])))
            if ended == 0 and reports:
                total, peak = total + reports[-1]["count"], max(peak, reports[-1]["peak_mib"])
                mib, cpu = max(mib, reports[-1]["input_mib"]), max(cpu, reports[-1]["input_seconds"])
            else:
                counted = folder / "count"
                total += int(counted.read_text()) if counted.exists() else 0
                kept = folder / "kept"
                if kept.exists():  # otherwise the child died before its first input
                    findings.setdefault(f"ended with {ended}", ("the process died", kept.read_bytes()))
        seed += 1
    print(
        f"{reader}: {total:,} inputs in {seconds:.0f} s, at most {mib:.0f} MiB and {cpu:.2f} CPU s for one input, "
        f"largest resident {peak} MiB, {len(findings)} findings"
    )
    out.mkdir(parents=True, exist_ok=True)
    for key, (words, content) in findings.items():
        name = f"{reader}-{hashlib.sha256(content).hexdigest()[:12]}.bin"
        (out / name).write_bytes(content)
        print(f"  {name}: {key}: {words}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("readers", nargs="+", choices=list(READERS))
    parser.add_argument("--seconds", type=float, default=60, help="seconds per reader")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the mutations")
    parser.add_argument("--out", type=Path, default=Path("fuzz-findings"), help="folder for the bytes of findings")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    for reader in given.readers:
        if given.child:
            child(reader, given.seconds, given.seed, given.out)
        else:
            fuzz(reader, given.seconds, given.seed, given.out)


if __name__ == "__main__":
    main()
