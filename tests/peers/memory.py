#!/usr/bin/env python3
"""Peak memory of training: frit, planned and measured, beside torch in eager mode.

usage: memory.py [--only PATTERN] [--json FILE]

Measured is the growth of the process's peak (VmHWM of /proc/self/status) over what it was before model and data were
loaded: of frit from the beginning of the command, compiler included; of torch from after its import (in a process of its
own, on as many threads), a run of the same networks on the same data: AdamW, cross-entropy, evaluation after the epoch,
a checkpoint of parameters and moments. torch keeps pictures as bytes too, and makes numbers of a batch when it is used.
Rows with a limit run frit under `--memory-limit`. The script fails where planned and measured differ by more than 5 %.
"""
import argparse, fnmatch, pathlib, subprocess, sys, tempfile

import frit
from matmul import cpu, with_packages, write_report

DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")
# Network, layers, batch, data, share of what frit takes that it is held to.
ROWS = [
    ("af-kan", (784, 64, 10), 64, "small", None),
    ("af-kan", (784, 64, 10), 1024, "small", None),
    ("mlp", (784, 64, 10), 64, "small", None),
    ("mlp", (784, 64, 10), 1024, "small", None),
    ("af-kan", (784, 64, 10), 64, "fashion-mnist", None),
    ("af-kan", (784, 64, 10), 1024, "fashion-mnist", None),
    ("mlp", (784, 64, 10), 64, "fashion-mnist", None),
    ("af-kan", (3072, 512, 100), 256, "large", None),
    ("mlp", (3072, *[2048] * 3, 100), 256, "large", None),
    ("mlp", (784, *[512] * 16, 10), 2048, "small", None),
    ("mlp", (784, *[512] * 16, 10), 2048, "small", 0.7),
]
SIZES = {"small": (4096, 784, 10), "large": (3000, 3072, 100)}


def peak():
    """The most memory that this process ever had, in bytes."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])


def pictures(part):
    import gzip
    import numpy as np

    def read(name, skip):
        with gzip.open(DATA / f"{part}-{name}-ubyte.gz") as file:
            file.read(skip)
            return np.frombuffer(file.read(), np.uint8)

    return read("images-idx3", 16).reshape(-1, 784), read("labels-idx1", 8)


def train(kind, layers, batch, data, folder):
    """Prints by how much the peak of this process grows when torch trains for an epoch."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(2)
    before = peak()
    import numpy as np
    import train as step

    step.LAYERS = layers
    if data == "fashion-mnist":
        sets = [tuple(map(torch.from_numpy, map(np.copy, pictures(part)))) for part in ("train", "t10k")]
    else:
        arrays = np.load(folder / f"{data}.npz")
        x, y = torch.from_numpy(arrays["x"]), torch.from_numpy(arrays["y"])
        share = len(x) // 5
        sets = [(x[share:], y[share:]), (x[:share], y[:share])]
    module = step.network(kind)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)

    def batches(part):
        x, y = part
        for i in range(0, len(x), batch):
            numbers = x[i : i + batch]
            yield (numbers / 255 - 0.5) / 0.5 if numbers.dtype == torch.uint8 else numbers, y[i : i + batch].long()

    for x, y in batches(sets[0]):
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(module(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        for x, y in batches(sets[1]):
            functional.cross_entropy(module(x), y).item()
    torch.save({"model": module.state_dict(), "optimizer": optimizer.state_dict()}, folder / "checkpoint.pt")
    print(peak() - before)


def make(folder):
    import numpy as np

    random = np.random.default_rng(0)
    for name, (records, width, classes) in SIZES.items():
        x = random.standard_normal((records, width), np.float32)
        np.savez(folder / f"{name}.npz", x=x, y=random.integers(0, classes, records))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="*", help="pattern of rows, as `af-kan*`")
    parser.add_argument("--json", help="write everything to this file")
    options = parser.parse_args()
    binary, records, wrong, free = frit.binary(), [], [], {}
    print(f"{cpu()}; MiB by which the peak grows, and times more than frit")
    print(f"{'network':<44} {'planned':>9} {'measured':>9} {'off':>7} {'torch':>9} {'torch/frit':>10}")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        make(folder)
        for number, (kind, layers, batch, data, share) in enumerate(ROWS):
            shown = f"{layers[0]}-{layers[1]}x{len(layers) - 2}-{layers[-1]}" if len(layers) > 3 else "-".join(map(str, layers))
            title = f"{kind} {shown} b{batch} {data}" + (f" limit {share:.0%}" if share else "")
            if not fnmatch.fnmatch(title, options.only):
                continue
            source = data if data == "fashion-mnist" else folder / f"{data}.npz"
            flags = ["--layers", ",".join(map(str, layers)), "--batch", str(batch), "--data", source, "--epochs", "1", "--threads", "2"]
            flags += [] if data == "fashion-mnist" else ["--label", "y"]
            key = (kind, layers, batch, data)
            if share:
                flags += ["--memory-limit", str(int(free[key] * share))]
            found, error = frit.record(binary, "train", kind, *flags, "--out", folder / f"run{number}")
            if error:
                wrong.append(f"{title}: {error}")
                continue
            asked = [sys.executable, __file__, "--serve", kind, ",".join(map(str, layers)), str(batch), data, str(folder)]
            torch = int(subprocess.run(asked, check=True, stdout=subprocess.PIPE, text=True).stdout)
            planned, measured = found["memory"]["peak"], found["memory_measured"]
            free[key] = measured
            off = planned / measured - 1
            mebibytes = [value / 2**20 for value in (planned, measured, torch)]
            print(f"{title:<44} {mebibytes[0]:>9.1f} {mebibytes[1]:>9.1f} {off:>+7.1%} {mebibytes[2]:>9.1f} {torch / measured:>10.2f}", flush=True)
            if abs(off) > 0.05:
                wrong.append(f"{title}: {off:+.1%} between planned and measured")
            if torch <= measured:
                wrong.append(f"{title}: torch takes less")
            records.append({"network": title, "planned": planned, "measured": measured, "torch": torch, "memory": found["memory"]})
    if options.json:
        write_report(options.json, records)
    if wrong:
        sys.exit("\n".join(wrong))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        train(sys.argv[2], tuple(map(int, sys.argv[3].split(","))), int(sys.argv[4]), sys.argv[5], pathlib.Path(sys.argv[6]))
    else:
        with_packages()
        main()
