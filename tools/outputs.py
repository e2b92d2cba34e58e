"""Record what commands print, for the pages of docs/commands: ``python tools/outputs.py [COMMAND ...]``.

Runs them on phantoms in a temporary folder, in a terminal of 80 columns, and writes docs/outputs/NAME.txt. Figures
differ between machines, so tests check only that every command has a page with output.
"""

import fcntl
import os
import pty
import re
import shlex
import struct
import subprocess
import sys
import tempfile
import termios
from pathlib import Path

OUTPUTS = Path(__file__).parents[1] / "docs" / "outputs"
COLUMNS = 80
MOST_LINES = 45
_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")

TRAIN = "--data phantoms --init none --image-size 96 --epochs 2 --batch-size 16 --lr 0.001 --device cpu"
FILM = "phantoms/test/patient00052/study1/view1_frontal.jpg"
CHECKPOINT = (
    "import torch; from safetensors.torch import load_file; "
    "torch.save({'state_dict': load_file('runs/first/model.safetensors')}, 'theirs.pth')"
)
RECORDED = {
    "phantom": "phantom phantoms --patients 60 --image-size 96",
    "check-data": "check-data phantoms",
    "split": "split phantoms/train.csv mine --by patient --valid 0.1 --test 0.1",
    "cache": "cache phantoms --image-size 96",
    "train": f"train {TRAIN} --policy u-ignore --out runs/first",
    "tune": "tune --data phantoms --model runs/first",
    "calibrate": "calibrate --data phantoms --model runs/first",
    "eval": "eval --data phantoms --model runs/first --split test",
    "compare": "compare runs/first runs/second --data phantoms",
    "power": "power --auroc 0.88 --prevalence 0.06 --studies 500",
    "errors": "errors --data phantoms --model runs/first --top 2",
    "localize": "localize --data phantoms --model runs/first",
    "report": "report runs/first",
    "predict": "predict phantoms/test/patient00052 phantoms/test/patient00053 --recursive --model runs/first",
    "merge": "merge parts/1.csv parts/2.csv predictions.csv",
    "explain": f'explain {FILM} --label "Pleural Effusion" --model runs/first',
    "export": "export runs/first --format onnx",
    "info": "info runs/first",
    "verify": "verify runs/first",
    "reproduce": "reproduce runs/first",
    "import": "import theirs.pth theirs.safetensors --findings chexpert5 --image-size 96",
    "config": "config",
    "bench": "bench --parts help --repeats 1",
    "demo": "demo cxr-demo",
}
"""Command line by command, in the order in which they build on each other."""
BEFORE = {
    "compare": [f"train {TRAIN} --policy u-ones --seed 1 --out runs/second"],
    "merge": [f"predict phantoms/test -r --model runs/first --csv parts/{n}.csv --shard {n}/2" for n in (1, 2)],
}
"""Commands that make what another one needs; they are not recorded."""
_NEEDED = ("phantom", "train", "tune")


def main() -> None:
    """Record all commands, or those that are named."""
    wanted = sys.argv[1:] or list(RECORDED)
    OUTPUTS.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="cxr-outputs-") as name:
        folder = Path(name)
        for command, line in RECORDED.items():
            if command not in wanted and command not in _NEEDED:
                continue
            for before in BEFORE.get(command, []):
                run(before, folder)
            if command == "import":
                subprocess.run([sys.executable, "-c", CHECKPOINT], cwd=folder, check=True)
            text = run(line, folder)
            if command in wanted:
                (OUTPUTS / f"{command}.txt").write_text(f"$ cxr {line}\n{shortened(text)}", encoding="utf-8")


def run(line: str, folder: Path) -> str:
    """Return what a command prints on stdout, a terminal of 80 columns, without colours."""
    outer, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 50, COLUMNS, 0, 0))
    environ = {**os.environ, "NO_COLOR": "1", "TERM": "xterm"}
    command = [sys.executable, "-m", "cxrtool", *shlex.split(line)]
    with subprocess.Popen(command, cwd=folder, stdout=inner, stderr=subprocess.DEVNULL, env=environ) as process:
        os.close(inner)
        found = b""
        while True:
            try:
                part = os.read(outer, 65536)
            except OSError:  # the process has closed the terminal
                break
            if not part:
                break
            found += part
    os.close(outer)
    if process.returncode != 0:
        raise SystemExit(f"cxr {line} ended with {process.returncode}:\n{found.decode()}")
    return _ESCAPES.sub("", found.decode()).replace("\r\n", "\n").replace(str(folder), "…")


def shortened(text: str) -> str:
    """Return at most `MOST_LINES` lines, and how many more there were."""
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    if len(lines) <= MOST_LINES:
        return "\n".join(lines) + "\n"
    return "\n".join([*lines[:MOST_LINES], f"… and {len(lines) - MOST_LINES} more lines"]) + "\n"


if __name__ == "__main__":
    main()
