"""Compare the paired test of two AUROCs with R's pROC (Robin et al. 2011, BMC Bioinformatics 12:77).

Prints the largest difference in AUROC, z and p over random data sets, with and without ties; exits with 1 if one is
above 1e-8. Needs Rscript and the R package pROC (Debian: r-cran-proc); without them it says so and stops.

python benchmarks/against_proc.py [DATASETS]
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from cxrtool.evaluation.delong import compare_areas

SCRIPT = """
suppressMessages(library(pROC))
found <- lapply(commandArgs(TRUE), function(path) {
  data <- read.csv(path)
  rocs <- lapply(data[c("first", "second")], function(scores) {
    roc(data$target, scores, levels = c(0, 1), direction = "<")
  })
  test <- roc.test(rocs$first, rocs$second, method = "delong", paired = TRUE)
  c(rocs$first$auc - rocs$second$auc, test$statistic, test$p.value)
})
write.table(format(do.call(rbind, found), digits = 17), quote = FALSE, row.names = FALSE, col.names = FALSE)
"""


def main() -> None:
    """Print the largest differences."""
    data_sets = int((sys.argv[1:] or ["100"])[0])
    if shutil.which("Rscript") is None:
        print("skipped: Rscript is not installed")
        return
    rng = np.random.default_rng(0)
    ours, paths = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(data_sets):
            rows = int(rng.integers(30, 400))
            targets = np.concatenate(([0, 0, 1, 1], (rng.random(rows - 4) < rng.uniform(0.05, 0.6)).astype(int)))
            shared = rng.normal(size=rows)
            scores = [shared + rng.normal(size=rows) + rng.uniform(0, 2) * targets for _ in range(2)]
            if number % 2:
                scores = [np.round(one) for one in scores]
            paths.append(Path(folder) / f"{number}.csv")
            np.savetxt(
                paths[-1], np.column_stack([targets, *scores]), "%.17g", ",", header="target,first,second", comments=""
            )
            found = compare_areas(targets, *scores)
            ours.append([found.value, found.value / found.standard_error, found.normal_p_value])
        done = subprocess.run(["Rscript", "-e", SCRIPT, *map(str, paths)], capture_output=True, text=True, check=False)
    if done.returncode:
        print(f"skipped: pROC did not run: {done.stderr.strip()}")
        return
    theirs = np.array([line.split() for line in done.stdout.splitlines()], dtype=float)
    worst = np.abs(np.array(ours) - theirs).max(axis=0)
    print(f"{data_sets} data sets, half with ties: largest difference from pROC")
    print(f"AUROC difference {worst[0]:.1e}, z {worst[1]:.1e}, p {worst[2]:.1e}")
    if worst.max() > 1e-8:
        sys.exit(1)


if __name__ == "__main__":
    main()
