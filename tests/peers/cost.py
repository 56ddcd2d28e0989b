#!/usr/bin/env python3
"""The cost model beside the clock: what `frit inspect --kernels` expects of each kernel and what it takes.

usage: cost.py [--threads 1,2] [--cases DIR]... [--vector-bits BITS] [--worst N] [--json FILE]

Kernels come from networks of the KAN family (exported as models.py does), from models made here (softmax, layer norm,
elementwise, reductions over rows and columns, gelu, of several sizes) and from test-case folders named with --cases.
Prints expected over measured time of each generated kernel, the median and the spread of that ratio, and the worst.
Measured is the fastest of many runs, as the rates of the machine are: on a busy one, long runs wait for other processes.
"""
import argparse, json, math, pathlib, tempfile, time

import frit
from matmul import cpu, with_packages


def made(folder):
    """Models of a node or a few, of several sizes."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    def save(name, shape, nodes, constants=(), out=None):
        x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
        y = helper.make_tensor_value_info("y", TensorProto.FLOAT, out or shape)
        values = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants]
        graph = helper.make_graph(nodes, name, [x], [y], values)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
        onnx.checker.check_model(model)
        path = folder / f"{name}.onnx"
        onnx.save(model, path)
        return path

    def ones(n):
        return np.ones(n, np.float32)

    node = helper.make_node
    for rows, columns in ((16, 64), (64, 784), (512, 512), (4096, 128), (1024, 4096)):
        size = f"{rows}x{columns}"
        yield save(f"softmax_{size}", [rows, columns], [node("Softmax", ["x"], ["y"], axis=-1)])
        yield save(f"softmax_columns_{size}", [rows, columns], [node("Softmax", ["x"], ["y"], axis=0)])
        norm = node("LayerNormalization", ["x", "scale", "bias"], ["y"], axis=-1)
        yield save(f"layer_norm_{size}", [rows, columns], [norm], [("scale", ones(columns)), ("bias", ones(columns))])
        for op in ("ReduceSum", "ReduceMax", "ReduceL2"):
            for axis, out in ((1, [rows, 1]), (0, [1, columns])):
                reduce = node(op, ["x", "axes"], ["y"])
                axes = [("axes", np.array([axis]))]
                yield save(f"{op.lower()}_{axis}_{size}", [rows, columns], [reduce], axes, out)
        yield save(f"transpose_{size}", [rows, columns], [node("Transpose", ["x"], ["y"])], out=[columns, rows])
    for n in (1 << 10, 1 << 14, 1 << 18, 1 << 22):
        for op in ("Relu", "Exp", "Sigmoid", "Tanh", "Erf", "Gelu", "Sqrt", "Sin", "Log"):
            yield save(f"{op.lower()}_{n}", [n], [node(op, ["x"], ["y"])])
        chain = [node("Mul", ["x", "x"], ["a"]), node("Add", ["a", "x"], ["b"]), node("Div", ["x", "b"], ["y"])]
        yield save(f"quotient_{n}", [n], chain)


def networks():
    """Some of what models.py compares."""
    from models import CACHE, FAMILY, LAYERS, exported

    keys = [(name, LAYERS, 16, "legacy") for name in FAMILY if name != "sech"]
    keys += [("afkan_silu", LAYERS, 256, "legacy"), ("mlp_gelu_softmax", LAYERS, 64, "legacy"), ("block", LAYERS, 16, "legacy")]
    return exported(CACHE, keys).values()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default="1")
    parser.add_argument("--cases", action="append", default=[], type=pathlib.Path, help="a folder of test-case folders")
    parser.add_argument("--vector-bits", choices=["128", "256", "512"])
    parser.add_argument("--worst", type=int, default=12)
    parser.add_argument("--json", help="write everything to this file")
    options = parser.parse_args()
    binary, records = frit.binary(), []
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        paths = [*made(folder), *networks()]
        for cases in options.cases:
            paths.extend(sorted(p.parent for p in cases.glob("*/model.onnx")))
        for threads in options.threads.split(","):
            for path in paths:
                flags = ["--threads", threads] + (["--vector-bits", options.vector_bits] if options.vector_bits else [])
                found, error = frit.record(binary, "inspect", "--kernels", path, *flags)
                if error:
                    print(f"{path.name}: {error}")
                    continue
                for kernel in found["kernels"]:
                    if kernel["kind"] == "generated" and kernel["fastest_us"] and kernel["predicted_us"]:
                        kernel["ratio"] = kernel["predicted_us"] / kernel["fastest_us"]
                        model = path.stem if path.suffix == ".onnx" else path.name
                        records.append({"model": model, "threads": int(threads), **kernel})
    report(records, options.worst)
    if options.json:
        data = {"cpu": cpu(), "date": time.strftime("%Y-%m-%d"), "records": records}
        pathlib.Path(options.json).write_text(json.dumps(data, indent=1) + "\n")


def report(records, worst):
    """All kernels in a table, then the summary."""
    def line(r):
        parts = r["predicted"]
        return (f"{r['model'][:24]:<24} {r['name'][:30]:<30} {r['threads']:>2} {r['predicted_us']:>10.2f} {r['fastest_us']:>10.2f} "
                f"{r['ratio']:>6.2f}  {parts['arithmetic_us']:>9.2f} {parts['memory_us']:>9.2f} {r['memory'] or '':<5}")

    head = f"{'model':<24} {'kernel':<30} {'t':>2} {'expected':>10} {'measured':>10} {'ratio':>6}  {'arithm.':>9} {'memory':>9}  (us)"
    print(head)
    for record in records:
        print(line(record))
    if not records:
        return
    order = sorted(records, key=lambda r: abs(math.log(r["ratio"])), reverse=True)
    ratios = sorted(r["ratio"] for r in records)
    within = sum(1 for r in ratios if 1 / 1.5 <= r <= 1.5) / len(ratios)
    spread = math.exp(sum(abs(math.log(r)) for r in ratios) / len(ratios))
    print(f"\nworst of {len(records)} kernels; {cpu()}\n{head}")
    for record in order[:worst]:
        print(line(record))
    print(f"\n{len(records)} kernels: median ratio {ratios[len(ratios) // 2]:.2f}, 10% below {ratios[len(ratios) // 10]:.2f}, "
          f"10% above {ratios[-1 - len(ratios) // 10]:.2f}, off by a factor of {spread:.2f} in the mean, {within:.0%} within 1.5")


if __name__ == "__main__":
    with_packages()
    main()
