#!/usr/bin/env python3
"""One training step: frit beside torch in eager mode and torch.compile.

usage: train.py [--rounds N] [--threads 1,2] [--batch 64,1024] [--data normal,pixels] [--only PATTERN] [--json FILE]

A step is forward, cross-entropy, backward and AdamW (learning rate 1e-3, weight decay 1e-4, torch's fused one) on one
batch that stays in memory. Networks are `frit bench --train`'s: AF-KAN 784-64-10 (grid 3, order 3, silu, quad1, global
attention, layer norm, bases normalised over the batch) and the MLP of the same layers and norms, y = silu(LayerNorm(x) W^T) as the
paper's authors have it in their code (`frit train mlp`).
Inputs are standard normal, or as pixels of MNIST: half of them exactly -1, so that very many tie for the extremes.
Each program is a process that stays and runs a few milliseconds when it is asked to; they take turns, so that a busy
moment of the machine hits all, and times are as in models.py. Ratios are taken round by round; above 1: frit is faster.
The last column is frit's AF-KAN over torch.compile's MLP: below 1, AF-KAN trains in less than others need for the MLP.
Rows `@128` hold frit's vectors to 128 bits (torch's stay as wide as the machine's).
Before anything is timed, torch and `frit train` take a few steps from the same initial values on the same batch; their
losses must agree, under strict and fast math.
"""
import argparse, fnmatch, json, os, pathlib, statistics, subprocess, sys, tempfile

import frit
from matmul import cpu, with_packages, write_report
from models import Frit, Peer, burst, rounds_of

LAYERS, GRID, ORDER = (784, 64, 10), 3, 3
PEERS = ("eager", "compile")
STEPS = 4


def network(kind):
    """A network of torch, with the parameters' names that frit gives them."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Norm(nn.Module):
        """What both networks have beside AF-KAN's bases."""

        def __init__(self, inputs, outputs):
            super().__init__()
            self.norm = nn.LayerNorm(inputs)
            self.base_weight = nn.Parameter(torch.empty(outputs, inputs).uniform_(-1, 1) / inputs**0.5)

    class Perceptron(Norm):
        def forward(self, x):
            return functional.silu(functional.linear(self.norm(x), self.base_weight))

    class AfKan(Norm):
        def __init__(self, inputs, outputs):
            super().__init__(inputs, outputs)
            low = (torch.arange(GRID + ORDER) - ORDER) / GRID
            self.phase_low, self.phase_high = nn.Parameter(low), nn.Parameter(low + (ORDER + 1) / GRID)
            self.gk_linear = nn.Linear(GRID + ORDER, 1)
            self.temperature = nn.Parameter(torch.tensor(float(inputs) ** 0.5))

        def forward(self, x):
            x = x.unsqueeze(-1)
            phi = (functional.silu(x - self.phase_low) * functional.silu(self.phase_high - x)) ** 2
            phi = phi / torch.linalg.vector_norm(phi)
            phi = (phi - phi.min()) / (phi.max() - phi.min())
            logits = self.gk_linear(phi).squeeze(-1) / self.temperature.clamp(min=1)
            z = torch.softmax(logits, -1) * phi.sum(-1)
            return functional.linear(functional.silu(self.norm(z)), self.base_weight)

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            layer = {"af-kan": AfKan, "mlp": Perceptron}[kind]
            self.layers = nn.ModuleList([layer(*pair) for pair in zip(LAYERS, LAYERS[1:])])

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    return Network()


def batch_of(data, batch):
    """Inputs and labels."""
    import torch

    torch.manual_seed(0)
    x = torch.randn(batch, LAYERS[0])
    if data == "pixels":
        shades = torch.randint(0, 256, x.shape) * torch.randint(0, 2, x.shape)
        x = (shades / 255 - 0.5) / 0.5
    return x, torch.randint(0, LAYERS[-1], (batch,))


def torch_step(module, x, labels, compiled):
    """A function that takes one step and returns its loss."""
    import torch
    from torch.nn import functional

    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-3, weight_decay=1e-4, fused=True)
    forward = torch.compile(module, dynamic=False) if compiled else module

    def step():
        optimizer.zero_grad(set_to_none=True)
        loss = functional.cross_entropy(forward(x), labels)
        loss.backward()
        optimizer.step()
        return loss

    return step


def serve(peer, threads):
    """Answers `KIND BATCH DATA MILLISECONDS` as `burst` does, or with why not."""
    import torch

    torch.set_num_threads(threads)
    known, run = None, None
    for line in sys.stdin:
        kind, batch, data, millis = line.split()
        try:
            if known != (kind, batch, data):
                known, run = (kind, batch, data), None
                # Without this, a network of another batch counts as one more version of the first.
                torch._dynamo.reset()
                run = torch_step(network(kind), *batch_of(data, int(batch)), peer == "compile")
                burst(run, 20)
            if run is None:
                raise RuntimeError("refused before")
            print(*burst(run, float(millis)), flush=True)
        except Exception as error:
            run = None
            print("no", (str(error).strip().splitlines() or [type(error).__name__])[0][:200], flush=True)


def check(binary):
    """Ends the program unless frit and torch have the same losses from the same start, batch after batch."""
    import numpy as np
    import torch
    from torch.nn import functional

    wrong = []
    for kind in ("af-kan", "mlp"):
        for data in ("normal", "pixels"):
            with tempfile.TemporaryDirectory() as folder:
                folder = pathlib.Path(folder)
                subprocess.run([binary, "new", kind, "-o", folder / "new.frit"], check=True, stdout=subprocess.DEVNULL)
                module = network(kind)
                start = safetensors((folder / "new.safetensors").read_bytes())
                module.load_state_dict({name: torch.from_numpy(start[name].copy()) for name in module.state_dict()})
                x, labels = batch_of(data, 64)
                # Every batch is the same, so that an epoch's mean is that of steps that build on each other.
                np.savez(folder / "data.npz", x=np.tile(x.numpy(), (STEPS, 1)), y=np.tile(labels.numpy(), STEPS))
                np.savez(folder / "judge.npz", x=x.numpy(), y=labels.numpy())
                names = ["train", kind, "--data", folder / "data.npz", "--validation", folder / "judge.npz", "--label", "y"]
                found = {}
                for math in ("strict", "fast"):
                    flags = ["--epochs", "1", "--math", math, "--out", folder / math]
                    _, error = frit.record(binary, *names, *flags)
                    if error:
                        sys.exit(f"frit train {kind}: {error}")
                    found[math] = json.loads((folder / math / "metrics.jsonl").read_text().splitlines()[0])
            step = torch_step(module, x, labels, False)
            expected = {"train_loss": statistics.mean(step().item() for _ in range(STEPS))}
            with torch.no_grad():
                expected["validation_loss"] = functional.cross_entropy(module(x), labels).item()
            for math, losses in found.items():
                for name, value in expected.items():
                    if abs(losses[name] - value) > 1e-3 * value:
                        wrong.append(f"{kind}, {data}, {math} math: {name} is {losses[name]:.6f} of frit, {value:.6f} of torch")
    if wrong:
        sys.exit("\n".join(wrong))
    print(f"losses of {STEPS} steps and of the network after them: as torch's, both networks, both kinds of data, strict and fast math")


def safetensors(content):
    """Arrays by name."""
    import numpy as np

    size = int.from_bytes(content[:8], "little")
    head = json.loads(content[8 : 8 + size])
    begin = 8 + size
    return {
        name: np.frombuffer(content[begin + at["data_offsets"][0] : begin + at["data_offsets"][1]], np.float32).reshape(at["shape"])
        for name, at in head.items()
        if name != "__metadata__"
    }


def rows_of(options):
    """Titles, what a peer is asked for, and vector bits to hold frit to."""
    for batch in options.batch.split(","):
        for data in options.data.split(","):
            for kind, bits in (("af-kan", None), ("af-kan", 128), ("mlp", None), ("mlp", 128)):
                title = f"{kind} b{batch} {data}" + (f" @{bits}" if bits else "")
                if fnmatch.fnmatch(title, options.only):
                    yield title, (kind, batch, data), bits


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--batch", default="64,1024")
    parser.add_argument("--data", default="normal,pixels")
    parser.add_argument("--only", default="*", help="pattern of rows, as `af-kan*`")
    parser.add_argument("--json", help="write everything to this file")
    options = parser.parse_args()
    binary, records = frit.binary(), []
    check(binary)
    if os.getloadavg()[0] > 1:
        print("note: others use this machine: with several threads, programs that wait for each other by spinning are far slower")
    for threads in map(int, options.threads.split(",")):
        def torch_worker(peer):
            return Peer([sys.executable, __file__, "--serve", peer, str(threads)], threads)

        # torch.compile's MLP is there beside every network, as `mlp`.
        peers = {**{peer: torch_worker(peer) for peer in PEERS}, "mlp": torch_worker("compile")}
        print(f"\n{threads} thread(s), a step in median microseconds, and times slower than frit; {cpu()}")
        print(f"{'network':<26} {'frit':>9} {'eager':>9} {'compile':>9}   {'eager/frit':>10} {'compile/frit':>12} {'frit/compiled MLP':>18}")
        for title, row, bits in rows_of(options):
            asked = {"frit": (), **dict.fromkeys(PEERS, row), "mlp": ("mlp", *row[1:])}
            refused = {peer: why for peer, worker in peers.items() if (why := worker.refuses(asked[peer]))}
            workers = {"frit": Frit(binary, [row[0], "--train", "--batch", row[1], "--data", row[2]], threads, bits), **{p: w for p, w in peers.items() if p not in refused}}
            times = rounds_of(asked, workers, options.rounds, threads, 25)
            workers["frit"].close()
            median = {name: statistics.median(each) for name, each in times.items()}
            ratio = {
                name: statistics.median(other / own for other, own in zip(each, times["frit"]))
                for name, each in times.items()
                if name != "frit"
            }

            def cell(values, name, width, digits, form=lambda value: value):
                return f"{form(values[name]):>{width}.{digits}f}" if name in values else f"{'-':>{width}}"

            print(f"{title:<26} {median['frit']:>9.1f} {cell(median, 'eager', 9, 1)} {cell(median, 'compile', 9, 1)}   "
                  f"{cell(ratio, 'eager', 10, 2)} {cell(ratio, 'compile', 12, 2)} {cell(ratio, 'mlp', 18, 2, lambda r: 1 / r)}", flush=True)
            for peer, why in refused.items():
                print(f"  {peer}: {why}")
            record = {"network": row[0], "batch": int(row[1]), "data": row[2], "vector_bits": bits, "threads": threads}
            records.append({**record, "microseconds": median, "ratio": ratio, "refused": refused})
        for worker in peers.values():
            worker.close()
    if options.json:
        write_report(options.json, records)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        with_packages()
        main()
