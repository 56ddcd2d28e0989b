#!/usr/bin/env python3
"""Matrix products: frit's kernels beside OpenBLAS (numpy), oneDNN and MKL (torch) and ONNX Runtime.

usage: matmul.py [--rounds N] [--threads 1,2] [--only MxKxN,...] [--json FILE]

Builds frit's benchmark and runs it and the peers in turns, a few milliseconds each, so that a busy moment of the machine
hits all of them. B is constant, as weights are: frit, oneDNN and ONNX Runtime may pack it beforehand. Prints GFLOP/s of
the best run and of the median of the rounds' medians, and frit over the best peer. From every time that of a 1x1x16
product is taken away: what a call takes, which for the peers is one from Python. A call of ONNX Runtime takes several
times as long as a small product, so a call there is one of a graph of many such products: what a call takes more or less
from one size to the next does not count as the product's then.

Without the packages of requirements.txt it makes an environment for them in the user's cache folder.
"""
import argparse, json, os, pathlib, platform, subprocess, sys, time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
SIZES = [
    (1, 784, 64), (16, 784, 64), (64, 784, 64), (256, 784, 64), (64, 64, 10), (8, 768, 768), (128, 768, 768),
    (128, 3072, 768), (128, 768, 3072), (128, 384, 1536), (512, 512, 512), (1024, 1024, 1024), (3136, 576, 64),
    (1, 2304, 9216), (8, 2304, 9216),
]
PEERS = ["openblas", "onednn", "mkl", "onnxruntime"]


def repeats(peer):
    """How many products a call of a peer makes."""
    return 16 if peer == "onnxruntime" else 1


def product(peer, threads, m, k, n):
    """A function that multiplies `repeats` times."""
    import numpy as np

    random = np.random.default_rng(1)
    a = random.uniform(-1, 1, (m, k)).astype(np.float32)
    b = random.uniform(-1, 1, (k, n)).astype(np.float32)
    if peer == "openblas":
        c = np.empty((m, n), np.float32)
        return lambda: np.matmul(a, b, out=c)
    if peer in ("onednn", "mkl"):
        import torch

        torch.set_num_threads(threads)
        torch.set_grad_enabled(False)
        x = torch.from_numpy(a)
        if peer == "mkl":
            y, c = torch.from_numpy(b), torch.empty(m, n)
            return lambda: torch.mm(x, y, out=c)
        weights = torch.from_numpy(np.ascontiguousarray(b.T))
        packed = torch.ops.mkldnn._reorder_linear_weight(weights, m)
        linear = torch.ops.mkldnn._linear_pointwise
        return lambda: linear(x, packed, None, "none", [], "")
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    def floats(name, shape):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    copies = range(repeats(peer))
    # Without passes over the graph, which would make one product of them; weights are packed nevertheless.
    nodes = [helper.make_node("MatMul", ["x", "w"], [f"y{i}"]) for i in copies]
    weights = numpy_helper.from_array(b, "w")
    outputs = [floats(f"y{i}", [m, n]) for i in copies]
    graph = helper.make_graph(nodes, "products", [floats("x", [m, k])], outputs, [weights])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    binding.bind_ortvalue_input("x", onnxruntime.OrtValue.ortvalue_from_numpy(a))
    for i in copies:
        binding.bind_ortvalue_output(f"y{i}", onnxruntime.OrtValue.ortvalue_from_numpy(np.empty((m, n), np.float32)))
    return lambda: session.run_with_iobinding(binding)


def serve(peer, threads):
    """Answers `M K N MILLISECONDS` with the best and the median nanoseconds, as frit's benchmark does."""
    size, run = None, None
    for line in sys.stdin:
        m, k, n, millis = map(int, line.split())
        if size != (m, k, n):
            size, run = (m, k, n), product(peer, threads, m, k, n)
            for _ in range(3):
                run()
        begin = time.perf_counter_ns()
        run()
        batch = int(min(max(50_000 / (time.perf_counter_ns() - begin), 1), 1000))
        times = []
        while time.perf_counter_ns() - begin < millis * 1e6 or len(times) < 3:
            start = time.perf_counter_ns()
            for _ in range(batch):
                run()
            times.append((time.perf_counter_ns() - start) / batch)
        times.sort()
        print(*(time / repeats(peer) for time in (times[0], times[len(times) // 2])), flush=True)


class Worker:
    """A process that multiplies when asked: a peer with its number of threads, or frit."""

    def __init__(self, command, threads, tail=""):
        limits = {name: str(threads) for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")}
        self.tail = tail
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, **limits}
        )

    def ask(self, size, millis):
        self.process.stdin.write(" ".join(map(str, size)) + f" {self.tail}{millis}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().split()
        if not answer:
            sys.exit(f"{self.process.args} ended: {self.process.wait()}")
        return [float(word) for word in answer]

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def benchmark():
    """frit's benchmark, built."""
    command = ["cargo", "bench", "-p", "frit-runtime", "--bench", "matmul", "--no-run", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    artifacts = (json.loads(line) for line in built.splitlines() if line.startswith("{"))
    return next(a["executable"] for a in artifacts if a.get("executable") and a["target"]["name"] == "matmul")


def measure(size, workers, rounds):
    """Best and median nanoseconds of each worker."""
    best, middles = {name: float("inf") for name in workers}, {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            # Threads of the one before go to sleep.
            time.sleep(0.002)
            least, middle = worker.ask(size, 10)
            best[name] = min(best[name], least)
            middles[name].append(middle)
    return {name: (best[name], sorted(middles[name])[rounds // 2]) for name in workers}


def cpu():
    """The name of the CPU."""
    try:
        lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def versions():
    """What is installed of the packages that are pinned."""
    from importlib.metadata import version

    names = [line.split("==")[0] for line in (HERE / "requirements.txt").read_text().split()]
    return {name: version(name) for name in names}


def write_report(path, records):
    """Records, with where, when and beside what they were taken."""
    report = {"cpu": cpu(), "date": time.strftime("%Y-%m-%d"), "versions": versions(), "records": records}
    pathlib.Path(path).write_text(json.dumps(report, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--only", help="sizes M x K x N, as 64x784x64,1x784x64")
    parser.add_argument("--json", help="write everything to this file")
    options = parser.parse_args()
    sizes = SIZES
    if options.only:
        sizes = [tuple(map(int, size.split("x"))) for size in options.only.split(",")]
    binary = benchmark()
    records = []
    for threads in map(int, options.threads.split(",")):
        serves = {peer: [sys.executable, __file__, "--serve", peer, str(threads)] for peer in PEERS}
        workers = {peer: Worker(command, threads) for peer, command in serves.items()}
        for form in ("packed", "plain", "plain_t"):
            workers[f"frit {form}"] = Worker([binary, "--serve"], threads, f"{form} {threads} ")
        calls = measure((1, 1, 16), workers, options.rounds)
        print(f"\n{threads} thread(s), GFLOP/s: best / median; {cpu()}")
        print(f"{'m':>5} {'k':>5} {'n':>5}  " + "".join(f"{name:>15}" for name in workers) + f"{'frit/best':>15}")
        for size in sizes:
            m, k, n = size
            rates = {}
            for name, times in measure(size, workers, options.rounds).items():
                rates[name] = [2.0 * m * k * n / max(t - calls[name][0], t / 10) for t in times]
            peer = [max(rates[name][i] for name in PEERS) for i in (0, 1)]
            ratio = [rates["frit packed"][i] / peer[i] for i in (0, 1)]
            cells = "".join(f"{r[0]:>8.1f}/{r[1]:<6.1f}" for r in rates.values())
            print(f"{m:>5} {k:>5} {n:>5}  {cells} {ratio[0]:>7.2f}/{ratio[1]:<6.2f}", flush=True)
            records.append({"size": size, "threads": threads, "gflops": rates, "ratio": ratio})
        for worker in workers.values():
            worker.close()
    if options.json:
        write_report(options.json, records)


def with_packages():
    """Runs this script again in an environment that has the packages, if this one has not."""
    try:
        import numpy, onnx, onnxruntime, onnxscript, torch  # noqa: F401
    except ImportError:
        cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache"))
        python = cache / "frit-peers" / "bin" / "python"
        if pathlib.Path(sys.executable) == python:
            raise
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", python.parent.parent], check=True)
        requirements = HERE / "requirements.txt"
        subprocess.run([python, "-m", "pip", "install", "-q", "-r", requirements], check=True)
        os.execv(python, [python, *sys.argv])


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        with_packages()
        main()
