#!/usr/bin/env python3
"""ONNX models that PyTorch exports, trained by frit and by PyTorch on the same batches: losses, then logits.

usage: run.py [--only PATTERN]... [--math fast] [--keep DIR]        (needs torch, onnx, onnxruntime, onnxscript, numpy)
       run.py --reference DEST                        the small models and losses that `cargo test` compares with

Networks: one as ResNets are (convolutions, batch norms, residual sums, pooling), one as transformers are (patches, layer
norms, attention, gelu), one of tokens (an embedding), and an AF-KAN. Each is exported by both of PyTorch's exporters, with its batch
norms kept and, as inference has it, folded; `frit train` takes the file, PyTorch the module (with convolutions fused
where they are folded). 20 steps, the last of them on a smaller batch, in the data's order. A row passes when every
loss is within 1e-3 of PyTorch's, the loss of evaluation too, and when what `frit export` writes passes onnx.checker, has
the names that the model had, and gives in ONNX Runtime the logits of PyTorch's trained network to 2e-3 of the largest.
"""
import argparse, copy, fnmatch, json, pathlib, shutil, subprocess, sys, tempfile, warnings

import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.fusion import fuse_conv_bn_eval

for beside in ("exports", "peers"):
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / beside))
import frit
from export import AfKan

warnings.filterwarnings("ignore")
BATCH, STEPS, LAST, CLASSES = 16, 20, 9, 5
LOSS, LOGITS = 1e-3, 2e-3


class Block(nn.Module):
    """Two convolutions with batch norms beside a shortcut."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs)
        self.conv2, self.bn2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs)
        self.down = None if inputs == outputs else nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.down(x) if self.down else x))


class ResNet(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(1, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.layer1, self.layer2 = Block(width, width, 1), Block(width, 2 * width, 2)
        self.fc = nn.Linear(2 * width, CLASSES)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 2)
        return self.fc(F.adaptive_avg_pool2d(self.layer2(self.layer1(x)), 1).flatten(1))

    @staticmethod
    def data(n, side=12):
        return torch.randn(n, 1, side, side)


class Attention(nn.Module):
    """A pre-norm block."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)

    def forward(self, x):
        b, s, w = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(b, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        a = torch.softmax(q @ k.transpose(-2, -1) / (w // self.heads) ** 0.5, dim=-1)
        x = x + self.out((a @ v).transpose(1, 2).reshape(b, s, w))
        return x + self.down(F.gelu(self.up(self.norm2(x))))


class Transformer(nn.Module):
    """Patches of 8 numbers, learned positions."""

    def __init__(self, width=16, heads=2, patches=6):
        super().__init__()
        self.patches = patches
        self.embed, self.position = nn.Linear(8, width), nn.Parameter(0.02 * torch.randn(1, patches, width))
        self.blocks = nn.ModuleList([Attention(width, heads) for _ in range(2)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.embed(x.reshape(x.shape[0], self.patches, 8)) + self.position
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x).mean(1))

    @staticmethod
    def data(n):
        return torch.randn(n, 48)


class Tokens(nn.Module):
    """An embedding, a temperature that is one number, a causal mask."""

    def __init__(self, width=16, words=20, length=5):
        super().__init__()
        self.table = nn.Embedding(words, width)
        self.qk, self.v = nn.Linear(width, 2 * width), nn.Linear(width, width, bias=False)
        self.temperature = nn.Parameter(torch.tensor(1.5))
        self.register_buffer("mask", torch.triu(torch.full((length, length), float("-inf")), 1))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, CLASSES)

    def forward(self, x):
        x = self.table(x)
        q, k = self.qk(x).chunk(2, -1)
        a = torch.softmax(q @ k.transpose(-2, -1) / (4 * self.temperature.clamp(min=0.1)) + self.mask, -1)
        return self.head(self.norm(x + a @ self.v(x))[:, -1])

    @staticmethod
    def data(n):
        return torch.randint(0, 20, (n, 5))


class Kan(AfKan):
    """Temperatures are single numbers, phases vectors that no op takes as weights."""

    def __init__(self):
        super().__init__((30, 12, CLASSES))

    @staticmethod
    def data(n):
        return torch.randn(n, 30)


NETWORKS = {"resnet": ResNet, "transformer": Transformer, "tokens": Tokens, "af-kan": Kan}
# Name of a recipe: optimiser of PyTorch, flags of frit.
RECIPES = {
    "adamw": (lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.01), ["--lr", "1e-3", "--weight-decay", "0.01"]),
    "sgd": (lambda p: torch.optim.SGD(p, 0.02, momentum=0.9, weight_decay=1e-4), ["--optimizer", "sgd", "--lr", "0.02", "--momentum", "0.9", "--weight-decay", "1e-4"]),
}
LOSSES = {
    "cross-entropy": F.cross_entropy,
    "mse": F.mse_loss,
    "bce": F.binary_cross_entropy_with_logits,
}


def cases():
    """Name, network, exporter, whether norms are folded, recipe, loss, what is frozen."""
    for network in NETWORKS:
        for exporter in ("legacy", "dynamo"):
            for folded in (False, True):
                for recipe in RECIPES:
                    name = f"{network} {exporter}{' folded' if folded else ''} {recipe}"
                    yield name, network, exporter, folded, recipe, "cross-entropy", None
    for loss in ("mse", "bce"):
        yield f"transformer legacy adamw {loss}", "transformer", "legacy", False, "adamw", loss, None
    for exporter in ("legacy", "dynamo"):
        yield f"resnet {exporter} sgd frozen", "resnet", exporter, False, "sgd", "cross-entropy", "layer1"
        yield f"resnet {exporter} sgd statistics", "resnet", exporter, False, "sgd", "cross-entropy", "statistics"


def made(network, folded):
    """The module; where norms will be folded, one whose norms are not as new: 1 and 0 would leave nothing to fold."""
    torch.manual_seed(1)
    module = NETWORKS[network]()
    if folded:
        for value in [*module.parameters(), *module.buffers()]:
            if value.dtype == torch.float32:
                value.data += 0.1 * torch.rand_like(value)
    return module.eval()


def export(module, x, path, exporter, folded):
    names = {"input_names": ["x"], "output_names": ["logits"]}
    if exporter == "legacy":
        axes = {"x": {0: "batch"}, "logits": {0: "batch"}}
        mode = torch.onnx.TrainingMode.EVAL if folded else torch.onnx.TrainingMode.PRESERVE
        torch.onnx.export(module, (x,), str(path), **names, opset_version=17, dynamo=False, dynamic_axes=axes, training=mode, do_constant_folding=folded)
    else:
        shapes = ({0: torch.export.Dim("batch", min=1, max=4096)},)
        torch.onnx.export(module, (x,), str(path), **names, opset_version=18, dynamo=True, dynamic_shapes=shapes, external_data=False, verbose=False, optimize=folded)


def fused(module):
    """The module with its batch norms in its convolutions."""
    module = copy.deepcopy(module)
    for part in module.modules():
        for conv, norm in (("conv1", "bn1"), ("conv2", "bn2")):
            if isinstance(getattr(part, norm, None), nn.BatchNorm2d):
                setattr(part, conv, fuse_conv_bn_eval(getattr(part, conv), getattr(part, norm)))
                setattr(part, norm, nn.Identity())
        if isinstance(part, nn.Sequential) and isinstance(part[1], nn.BatchNorm2d):
            part[0], part[1] = fuse_conv_bn_eval(part[0], part[1]), nn.Identity()
    return module


def targets(loss, n):
    if loss == "cross-entropy":
        return torch.randint(0, CLASSES, (n,))
    return torch.randn(n, CLASSES) if loss == "mse" else torch.randint(0, 2, (n, CLASSES)).float()


def train(module, x, y, recipe, loss, frozen, batch=BATCH):
    """PyTorch's losses, one a step."""
    module.train()
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(not (frozen == "layer1" and name.startswith("layer1.")))
    for name, part in module.named_modules():
        if isinstance(part, nn.BatchNorm2d) and (frozen == "statistics" or frozen == "layer1" and name.startswith("layer1.")):
            part.eval()
    optimizer = RECIPES[recipe][0]([p for p in module.parameters() if p.requires_grad])
    losses = []
    for at in range(0, len(x), batch):
        optimizer.zero_grad()
        value = LOSSES[loss](module(x[at : at + batch]), y[at : at + batch])
        value.backward()
        optimizer.step()
        losses.append(value.item())
    module.eval()
    return losses


def names_of(path):
    """What whoever uses a model relies on: inputs, outputs, opset, initializers."""
    model = onnx.load(path)
    ports = [[v.SerializeToString() for v in list(model.graph.input) + list(model.graph.output)], model.opset_import[0].version]
    return ports, {t.name for t in model.graph.initializer}


def reference(dest):
    """Models of a few kilobytes, their data and PyTorch's losses, which the workspace's tests train on without Python."""
    batch, last = 4, 3
    for name, module, exporter, folded, recipe in (
        ("resnet", ResNet(4), "legacy", False, "sgd"),
        ("transformer", Transformer(8, 2, 6), "dynamo", True, "adamw"),
    ):
        torch.manual_seed(2)
        count = batch * (STEPS - 1) + last
        x, y = (ResNet.data(count, 8) if name == "resnet" else Transformer.data(count)), targets("cross-entropy", count)
        module.eval()
        folder = dest / name
        folder.mkdir(parents=True, exist_ok=True)
        export(module, x[:4], folder / "model.onnx", exporter, folded)
        model = onnx.load(folder / "model.onnx")
        # No paths of the machine that exported it.
        for node in model.graph.node:
            node.ClearField("doc_string")
            del node.metadata_props[:]
        for value in [*model.graph.value_info, *model.graph.input, *model.graph.output]:
            del value.metadata_props[:]
        del model.graph.metadata_props[:], model.metadata_props[:]
        onnx.save(model, folder / "model.onnx")
        np.savez(folder / "data.npz", x=x.numpy(), y=y.numpy())
        trained = copy.deepcopy(module)
        losses = train(trained, x, y, recipe, "cross-entropy", None, batch)
        with torch.no_grad():
            logits = trained(x[:4])
        (folder / "losses.json").write_text(json.dumps({"losses": losses, "logits": logits.flatten().tolist()}, indent=1) + "\n")


def run(binary, case, folder, math):
    """A row: what was found, or why the case failed."""
    _, network, exporter, folded, recipe, loss, frozen = case
    module = made(network, folded)
    count = BATCH * (STEPS - 1) + LAST
    x, y = NETWORKS[network].data(count), targets(loss, count)
    model, out, back = folder / "model.onnx", folder / "run", folder / "back.onnx"
    export(module, x[:8], model, exporter, folded)
    np.savez(folder / "data.npz", x=x.numpy(), y=y.numpy())
    np.savez(folder / "judge.npz", x=x[:40].numpy(), y=y[:40].numpy())
    flags = ["--data", folder / "data.npz", "--validation", folder / "judge.npz", "--label", "y", "--loss", loss, "--target", "logits"]
    flags += ["--batch", str(BATCH), "--epochs", "1", "--schedule", "constant", "--log-every", "1", "--math", math, "--out", out]
    if frozen:
        flags += {"layer1": ["--freeze", "layer1.*"], "statistics": ["--freeze-statistics"]}[frozen]
    record, error = frit.record(binary, "train", model, *RECIPES[recipe][1], *flags)
    if error:
        return None, error
    found = [json.loads(line)["loss"] for line in (out / "steps.jsonl").read_text().splitlines()]
    torch_module = fused(module) if folded else copy.deepcopy(module)
    expected = train(torch_module, x, y, recipe, loss, frozen)
    with torch.no_grad():
        logits = torch_module(x[:40])
        # In batches, as frit judges: an AF-KAN's outputs depend on the batch.
        parts = [(min(BATCH, 40 - at), LOSSES[loss](torch_module(x[at : min(at + BATCH, 40)]), y[at : min(at + BATCH, 40)]).item()) for at in range(0, 40, BATCH)]
        judged = sum(n * value for n, value in parts) / 40
    losses = max(abs(a - b) / max(abs(b), 1e-9) for a, b in zip(found, expected)) if len(found) == STEPS else float("inf")
    validation = json.loads((out / "metrics.jsonl").read_text().splitlines()[0])["validation_loss"]
    evaluation = abs(validation - judged) / judged
    _, error = frit.record(binary, "export", out, "-o", back)
    if error:
        return None, error
    onnx.checker.check_model(onnx.load(back), full_check=True)
    (ports, before), (ports_back, after) = names_of(model), names_of(back)
    if ports != ports_back or not before <= after:
        return None, f"names changed: {sorted(before - after)}"
    session = onnxruntime.InferenceSession(str(back), providers=["CPUExecutionProvider"])
    (again,) = session.run(["logits"], {"x": x[:40].numpy()})
    difference = float(np.abs(again - logits.numpy()).max() / np.abs(logits.numpy()).max())
    sizes = (len(record["trained"]), len(record["renewed"]), len(record["frozen"]), len(record["constant"]))
    return (expected[0], expected[-1], losses, evaluation, difference, sizes), None


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--only", action="append", help="patterns of cases, as 'resnet*'")
    args.add_argument("--math", choices=("strict", "fast"), default="strict")
    args.add_argument("--keep", type=pathlib.Path, help="leave the files of each case in this folder")
    args.add_argument("--reference", type=pathlib.Path, metavar="DEST", help="write tests/training/reference")
    args = args.parse_args()
    if args.reference:
        return reference(args.reference)
    binary = frit.binary()
    print(f"{'case':<34} {'first':>7} {'last':>7} {'losses':>8} {'eval':>8} {'logits':>8}   trained, renewed, frozen, constant")
    failed = 0
    for case in cases():
        if not any(fnmatch.fnmatch(case[0], only) for only in args.only or ["*"]):
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = pathlib.Path(scratch)
            row, error = run(binary, case, folder, args.math)
            if args.keep:
                shutil.copytree(folder, args.keep / case[0].replace(" ", "_"), dirs_exist_ok=True)
        if error:
            failed += 1
            print(f"{case[0]:<34} FAILED: {error}")
            continue
        first, last, losses, evaluation, difference, sizes = row
        good = losses <= LOSS and evaluation <= LOSS and difference <= LOGITS
        failed += not good
        print(f"{case[0]:<34} {first:7.4f} {last:7.4f} {losses:8.1e} {evaluation:8.1e} {difference:8.1e}   {', '.join(map(str, sizes))}{'' if good else '   FAILED'}", flush=True)
    print(f"{failed} failed" if failed else "all agree: losses to 1e-3, logits to 2e-3")
    sys.exit(failed > 0)


if __name__ == "__main__":
    main()
