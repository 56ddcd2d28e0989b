#!/usr/bin/env python3
"""Export networks of the KAN family and what they are compared with as ONNX test-case folders.

usage: export.py DEST [--only PATTERN]... [--layers 28,16,10] [--batch 16]        (needs torch, onnx, onnxscript, numpy)
       export.py DEST --demo                  the one case that `frit demo` embeds (runtime/cli/assets/demo)

Every network below is exported by both PyTorch exporters, in several opsets, with a fixed and with a symbolic batch:
DEST/NAME_EXPORTER_OPSET_SHAPE/{model.onnx, test_data_set_0/{input,output}_0.pb}. The outputs are PyTorch's own, in float64
where the network allows it. `frit verify DEST/*` must pass on all of them.
"""
import argparse, fnmatch, math, pathlib, shutil, sys, warnings

import numpy as np
import onnx
import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional as F

warnings.filterwarnings("ignore")
LAYERS, BATCH = (28, 16, 10), 16


class AfKan(nn.Module):
    """arXiv 2503.06112: bases of activation functions, one set of phases a layer, whole-tensor normalisation."""

    def __init__(self, sizes, act=F.silu, func="quad1", grid=3, order=3):
        super().__init__()
        self.act, self.func = act, func
        n = grid + order
        low = (torch.arange(n) - order) / grid
        self.layers = nn.ModuleList()
        for d, o in zip(sizes, sizes[1:]):
            layer = nn.Module()
            layer.low = nn.Parameter(low.clone() + 0.01 * torch.randn(n))
            layer.high = nn.Parameter(low + (order + 1) / grid + 0.01 * torch.randn(n))
            layer.reduce = nn.Linear(n, 1)
            layer.temperature = nn.Parameter(torch.tensor(math.sqrt(d)))
            layer.norm = nn.LayerNorm(d)
            layer.weight = nn.Parameter(torch.empty(o, d).uniform_(-1, 1) / math.sqrt(d))
            self.layers.append(layer)

    def basis(self, u, v):
        return {
            "quad1": lambda: (u * v) ** 2,
            "quad2": lambda: u * v + u**2 + v**2,
            "sum": lambda: u + v,
            "prod": lambda: u * v,
            "sum_prod": lambda: u + v + u * v,
            "cubic1": lambda: (u + v) * (u**2 + v**2),
            "cubic2": lambda: (u * v) ** 3,
        }[self.func]()

    def forward(self, x):
        for layer in self.layers:
            t = x.unsqueeze(-1)
            phi = self.basis(self.act(t - layer.low), self.act(layer.high - t))
            phi = phi / phi.norm()
            phi = (phi - phi.min()) / (phi.max() - phi.min())
            logits = layer.reduce(phi)
            attention = F.softmax(logits / layer.temperature.clamp(min=1.0), dim=-2)
            x = F.linear(self.act(layer.norm((phi * attention).sum(-1))), layer.weight)
        return x


class BSpline(nn.Module):
    """Cubic B-splines by the Cox-de Boor recursion on a fixed grid, plus a silu branch (KAN as first published)."""

    def __init__(self, d, o, grid=5, order=3):
        super().__init__()
        self.order = order
        step = 2.0 / grid
        self.register_buffer("grid", (torch.arange(-order, grid + order + 1) * step - 1).expand(d, -1).contiguous())
        self.base = nn.Parameter(torch.randn(o, d) / math.sqrt(d))
        self.spline = nn.Parameter(0.1 * torch.randn(o, d, grid + order))

    def forward(self, x):
        t = x.unsqueeze(-1)
        g = self.grid
        b = ((t >= g[:, :-1]) & (t < g[:, 1:])).to(x.dtype)
        for k in range(1, self.order + 1):
            left = (t - g[:, : -(k + 1)]) / (g[:, k:-1] - g[:, : -(k + 1)]) * b[:, :, :-1]
            right = (g[:, k + 1 :] - t) / (g[:, k + 1 :] - g[:, 1:-k]) * b[:, :, 1:]
            b = left + right
        return F.linear(F.silu(x), self.base) + F.linear(b.reshape(x.size(0), -1), self.spline.reshape(self.spline.size(0), -1))


class Rbf(nn.Module):
    """Gaussian bases after a layer norm (FastKAN)."""

    def __init__(self, d, o, n=8):
        super().__init__()
        self.norm = nn.LayerNorm(d)
        self.centres = nn.Parameter(torch.linspace(-2, 2, n), requires_grad=False)
        self.width = 4.0 / (n - 1)
        self.linear = nn.Linear(d * n, o, bias=False)
        self.base = nn.Linear(d, o)

    def forward(self, x):
        b = torch.exp(-(((self.norm(x)[..., None] - self.centres) / self.width) ** 2))
        return self.linear(b.flatten(1)) + self.base(F.silu(x))


class Chebyshev(nn.Module):
    """T_n(tanh x) = cos(n acos(tanh x)), contracted by an einsum."""

    def __init__(self, d, o, degree=4):
        super().__init__()
        self.coefficients = nn.Parameter(torch.randn(d, o, degree + 1) / (d * (degree + 1)))
        self.register_buffer("degrees", torch.arange(0, degree + 1).float())

    def forward(self, x):
        t = torch.tanh(x).unsqueeze(-1).expand(-1, -1, self.degrees.numel())
        t = (torch.clamp(t, -1 + 1e-7, 1 - 1e-7).acos() * self.degrees).cos()
        return torch.einsum("bid,iod->bo", t, self.coefficients)


class ChebyshevRecursive(nn.Module):
    """The same polynomials by their recursion, written into a tensor."""

    def __init__(self, d, o, degree=4):
        super().__init__()
        self.degree = degree
        self.coefficients = nn.Parameter(torch.randn(d, o, degree + 1) / (d * (degree + 1)))

    def forward(self, x):
        t = torch.tanh(x)
        terms = [torch.ones_like(t), t]
        for _ in range(2, self.degree + 1):
            terms.append(2 * t * terms[-1] - terms[-2])
        return torch.einsum("bid,iod->bo", torch.stack(terms, dim=-1), self.coefficients)


class Fourier(nn.Module):
    def __init__(self, d, o, n=5):
        super().__init__()
        self.n = n
        self.coefficients = nn.Parameter(torch.randn(2, o, d, n) / (math.sqrt(d) * n))
        self.bias = nn.Parameter(torch.zeros(1, o))

    def forward(self, x):
        k = torch.arange(1, self.n + 1, device=x.device).reshape(1, 1, 1, self.n)
        t = x.reshape(x.shape[0], 1, x.shape[1], 1)
        c, s = torch.cos(k * t), torch.sin(k * t)
        y = torch.sum(c * self.coefficients[0:1], (-2, -1)) + torch.sum(s * self.coefficients[1:2], (-2, -1))
        return y + self.bias


class Wavelet(nn.Module):
    """Mexican hat or Morlet wavelets with a scale and a shift for each edge, then a batch norm."""

    def __init__(self, d, o, kind="mexican"):
        super().__init__()
        self.kind = kind
        self.scale = nn.Parameter(1 + 0.1 * torch.rand(o, d))
        self.shift = nn.Parameter(0.1 * torch.randn(o, d))
        self.weight = nn.Parameter(torch.randn(o, d) / math.sqrt(d))
        self.base = nn.Parameter(torch.randn(o, d) / math.sqrt(d))
        self.norm = nn.BatchNorm1d(o)

    def forward(self, x):
        t = (x.unsqueeze(1) - self.shift) / self.scale
        if self.kind == "mexican":
            w = 2 / (math.sqrt(3) * math.pi**0.25) * (t**2 - 1) * torch.exp(-0.5 * t**2)
        else:
            w = torch.exp(-0.5 * t**2) * torch.cos(5.0 * t)
        return self.norm((w * self.weight).sum(dim=2) + F.linear(F.silu(x), self.base))


class Rational(nn.Module):
    """P(x) / (1 + |Q(x)|) for groups of inputs, then a linear map."""

    def __init__(self, d, o, groups=4):
        super().__init__()
        self.groups = groups
        self.p = nn.Parameter(torch.randn(groups, 6) / 3)
        self.q = nn.Parameter(torch.randn(groups, 4) / 3)
        self.linear = nn.Linear(d, o)

    def forward(self, x):
        t = x.reshape(x.shape[0], self.groups, -1)
        p = sum(self.p[:, k, None] * t**k for k in range(6))
        q = sum(self.q[:, k, None] * t ** (k + 1) for k in range(4))
        return self.linear((p / (1 + q.abs())).reshape(x.shape))


class Sech(nn.Module):
    """Bases 1 / cosh((x - c) / h) and their squares by a softplus width."""

    def __init__(self, d, o, n=6):
        super().__init__()
        self.centres = nn.Parameter(torch.linspace(-2, 2, n))
        self.width = nn.Parameter(torch.zeros(n))
        self.linear = nn.Linear(d * n, o)
        self.norm = nn.LayerNorm(d)

    def forward(self, x):
        t = (self.norm(x).unsqueeze(-1) - self.centres) / (F.softplus(self.width) + 0.1)
        b = 1 / torch.cosh(t)
        return self.linear(torch.where(t > 0, b, b * b).flatten(1))


class Block(nn.Module):
    """A pre-norm transformer block over [batch, 12, width]."""

    def __init__(self, width=32, heads=4):
        super().__init__()
        self.heads = heads
        self.n1, self.n2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        b, s, w = x.shape
        q, k, v = self.qkv(self.n1(x)).reshape(b, s, 3, self.heads, w // self.heads).permute(2, 0, 3, 1, 4)
        a = torch.softmax(q @ k.transpose(-2, -1) / math.sqrt(w // self.heads), dim=-1)
        x = x + self.out((a @ v).transpose(1, 2).reshape(b, s, w))
        return x + self.down(F.gelu(self.up(self.n2(x))))


def networks(layers=LAYERS, batch=BATCH):
    """Name, module and input of each; layers are for those that are stacks of one kind."""
    def stack(layer, **options):
        return nn.Sequential(*[layer(d, o, **options) for d, o in zip(layers, layers[1:])])

    flat = torch.randn(batch, layers[0])
    acts = {"silu": F.silu, "relu": F.relu, "gelu": F.gelu, "selu": F.selu, "elu": F.elu, "leaky_relu": F.leaky_relu,
            "softplus": F.softplus, "sigmoid": torch.sigmoid, "tanh": torch.tanh}
    for name, act in acts.items():
        yield f"afkan_{name}", AfKan(layers, act), flat
    for func in ("quad2", "sum", "prod", "sum_prod", "cubic1", "cubic2"):
        yield f"afkan_{func}", AfKan(layers, F.silu, func), flat
    yield "bspline", stack(BSpline), flat
    yield "rbf", stack(Rbf), flat
    yield "chebyshev", stack(Chebyshev), flat
    yield "chebyshev_recursive", stack(ChebyshevRecursive), flat
    yield "fourier", stack(Fourier), flat
    yield "wavelet_mexican", stack(Wavelet), flat
    yield "wavelet_morlet", stack(Wavelet, kind="morlet"), flat
    yield "rational", stack(Rational), flat
    yield "sech", stack(Sech), flat
    first, hidden, last = layers[0], layers[1], layers[-1]
    yield "mlp_relu", nn.Sequential(nn.Linear(first, hidden), nn.ReLU(), nn.Dropout(0.1), nn.Linear(hidden, last)), flat
    yield "mlp_gelu_softmax", nn.Sequential(nn.Linear(first, hidden), nn.GELU(), nn.BatchNorm1d(hidden), nn.Linear(hidden, last), nn.LogSoftmax(-1)), flat
    yield "block", Block(), torch.randn(batch, 12, 32)
    yield "conv", nn.Sequential(nn.Conv2d(1, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8 * 49, 10)), torch.randn(batch, 1, 28, 28)


def seeded(layers=LAYERS, batch=BATCH):
    """The networks with the same weights and inputs every time."""
    torch.manual_seed(0)
    for network in networks(layers, batch):
        torch.manual_seed(0)
        yield network


def export(module, x, path, exporter, opset, dynamic):
    if exporter == "legacy":
        axes = {"x": {0: "batch"}, "y": {0: "batch"}} if dynamic else None
        torch.onnx.export(module, (x,), str(path), input_names=["x"], output_names=["y"], opset_version=opset, dynamo=False, dynamic_axes=axes)
    else:
        shapes = {0: torch.export.Dim("batch", min=1, max=4096)} if dynamic else None
        torch.onnx.export(module, (x,), str(path), input_names=["x"], output_names=["y"], opset_version=opset, dynamo=True,
                          dynamic_shapes=(shapes,) if dynamic else None, external_data=False, verbose=False)


def demo(dest):
    """An AF-KAN 64-32-10 at batch 64, with source lines but no path of the machine that exported it."""
    torch.manual_seed(1)
    module, x = AfKan((64, 32, 10)).eval(), torch.randn(64, 64)
    with torch.no_grad():
        y = module.double()(x.double()).float()
        module.float()
    dest.mkdir(parents=True, exist_ok=True)
    export(module, x, dest / "model.onnx", "dynamo", 20, False)
    model = onnx.load(dest / "model.onnx")
    folder = str(pathlib.Path(__file__).resolve().parent)
    for node in model.graph.node:
        kept = [p for p in node.metadata_props if p.key == "pkg.torch.onnx.stack_trace"]
        del node.metadata_props[:]
        for p in kept:
            trace = [line.strip() for line in p.value.splitlines() if folder in line]
            if trace:
                node.metadata_props.add(key=p.key, value=trace[-1].replace(folder + "/", ""))
    for value in [*model.graph.value_info, *model.graph.input, *model.graph.output, *model.graph.initializer]:
        del value.metadata_props[:]
    del model.graph.metadata_props[:], model.metadata_props[:]
    onnx.save(model, dest / "model.onnx")
    for file, value, label in (("input.pb", x, "x"), ("output.pb", y, "y")):
        (dest / file).write_bytes(numpy_helper.from_array(value.numpy(), label).SerializeToString())


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("dest", type=pathlib.Path)
    args.add_argument("--only", action="append", help="patterns of cases, as afkan_*_static")
    args.add_argument("--layers", default=LAYERS, type=lambda text: tuple(map(int, text.split(","))), help="two sizes or more, as 784,64,10")
    args.add_argument("--batch", default=BATCH, type=int)
    args.add_argument("--demo", action="store_true")
    args = args.parse_args()
    if args.demo:
        return demo(args.dest)
    if len(args.layers) < 2:
        sys.exit("--layers: two sizes or more, as 784,64,10")
    made = failed = 0
    for name, module, x in seeded(args.layers, args.batch):
        module.eval()
        with torch.no_grad():
            y = module.double()(x.double()).float()
            module.float()
        for exporter, opsets in (("legacy", (17, 20)), ("dynamo", (18, 21))):
            for opset in opsets:
                for dynamic in (False, True):
                    case = args.dest / f"{name}_{exporter}_{opset}_{'dyn' if dynamic else 'static'}"
                    if not any(fnmatch.fnmatch(case.name, only) for only in args.only or ['*']) or (case / "test_data_set_0" / "output_0.pb").exists():
                        continue
                    case.mkdir(parents=True, exist_ok=True)
                    try:
                        export(module, x, case / "model.onnx", exporter, opset, dynamic)
                    except Exception as error:  # the exporter refuses: nothing to check
                        print(f"{case.name}: not exported: {str(error).splitlines()[0][:120]}", file=sys.stderr)
                        shutil.rmtree(case)
                        failed += 1
                        continue
                    data = case / "test_data_set_0"
                    data.mkdir(exist_ok=True)
                    for file, value, label in (("input_0.pb", x, "x"), ("output_0.pb", y, "y")):
                        (data / file).write_bytes(numpy_helper.from_array(value.numpy(), label).SerializeToString())
                    (case / "data.json").write_text('{"rtol": 0.0002, "atol": 2e-05}')
                    made += 1
    print(f"{made} cases under {args.dest}, {failed} not exported")


if __name__ == "__main__":
    main()
