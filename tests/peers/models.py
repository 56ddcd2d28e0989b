#!/usr/bin/env python3
"""Whole networks: frit beside ONNX Runtime and torch.compile.

usage: models.py [--rounds N] [--threads 1,2] [--only PATTERN] [--exporters legacy,dynamo] [--json FILE]

Networks are those of tests/exports/export.py, exported here to ONNX by both PyTorch exporters (kept in the user's cache
folder), so every one computes the same function of the same weights and input. frit and ONNX Runtime run the ONNX file,
torch.compile (inductor, weights frozen) the module itself. Each is one process that stays and runs a few milliseconds when it is asked to;
they take turns, so that a busy moment of the machine hits all. Input and output stay in memory that the peer chose.
With one thread the time is that which the process had a CPU for, where the system tells it (long runs would else wait
more often for other processes than short ones); with several, it is the clock's.
Prints the median of all rounds in microseconds and how many times slower each peer is than frit (above 1: frit
is faster). Rows `@128` hold frit's vectors to 128 bits. The first run exports and compiles, which takes minutes.

Where torch.compile refuses a network or finds no C++ compiler, its column is empty and the reason is printed.
"""
import argparse, fnmatch, hashlib, math, os, pathlib, shutil, subprocess, sys, time

import frit
from matmul import Worker, cpu, with_packages, write_report

HERE = pathlib.Path(__file__).resolve().parent
EXPORT = HERE.parent / "exports" / "export.py"
CACHE = pathlib.Path(os.environ.get("XDG_CACHE_HOME", pathlib.Path.home() / ".cache")) / "frit-peers" / "models"
LAYERS = (784, 64, 10)
FAMILY = ("afkan_silu", "bspline", "rbf", "chebyshev", "fourier", "wavelet_mexican", "wavelet_morlet", "rational", "sech")
# Network, layers, batch, and vector bits to hold frit to.
ROWS = [
    *[("afkan_silu", LAYERS, batch, bits) for batch in (1, 64, 256) for bits in (None, 128)],
    *[(name, LAYERS, 16, None) for name in FAMILY],
    ("mlp_gelu_softmax", LAYERS, 64, None),
    ("block", LAYERS, 16, None),
]
OPSETS = {"legacy": 17, "dynamo": 18}


def network(name, layers, batch):
    """A network and an input, the same whenever it is asked for."""
    sys.path.insert(0, str(EXPORT.parent))
    import export

    return next((module.eval(), x) for found, module, x in export.seeded(layers, batch) if found == name)


def exported(cache, wanted):
    """Test-case folders by (network, layers, batch, exporter), exported to the cache unless they are there.

    What the exporter refuses is left out, and not tried again."""
    import torch

    folder = cache / hashlib.sha256(EXPORT.read_bytes() + torch.__version__.encode()).hexdigest()[:12]
    cases, missing = {}, {}
    for key in wanted:
        name, layers, batch, exporter = key
        cases[key] = folder / f"{name}_{'-'.join(map(str, layers))}_b{batch}_{exporter}"
        if not cases[key].exists():
            missing.setdefault((layers, batch), []).append(key)
    for (layers, batch), keys in missing.items():
        titles = {key: f"{key[0]}_{key[3]}_{OPSETS[key[3]]}_static" for key in keys}
        command = [sys.executable, EXPORT, folder / "new", "--layers", ",".join(map(str, layers)), "--batch", str(batch)]
        for title in titles.values():
            command += ["--only", title]
        print(f"exporting {len(keys)} networks, batch {batch}", file=sys.stderr)
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        for key, title in titles.items():
            if (folder / "new" / title / "data.json").exists():
                (folder / "new" / title).rename(cases[key])
            else:
                why = [line for line in done.stderr.splitlines() if line.startswith(f"{title}:")] or done.stderr.splitlines()[-1:]
                cases[key].mkdir(parents=True)
                (cases[key] / "refused").write_text("".join(why))
        shutil.rmtree(folder / "new", ignore_errors=True)
    for key, case in list(cases.items()):
        if (case / "refused").exists():
            print(f"{case.name}: left out: {(case / 'refused').read_text()}", file=sys.stderr)
            del cases[key]
    return cases


def burst(run, millis):
    """Best and median nanoseconds of a run, and how many there were."""
    begin, times = time.perf_counter_ns(), []
    while time.perf_counter_ns() - begin < millis * 1e6 or len(times) < 3:
        start = time.perf_counter_ns()
        run()
        times.append(time.perf_counter_ns() - start)
    times.sort()
    return times[0], times[len(times) // 2], len(times)


def onnxruntime_run(case, threads):
    import numpy as np
    import onnx
    import onnxruntime
    from onnx import numpy_helper

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(case / "model.onnx"), options, providers=["CPUExecutionProvider"])
    x = onnx.TensorProto.FromString((case / "test_data_set_0" / "input_0.pb").read_bytes())
    binding = session.io_binding()
    binding.bind_ortvalue_input(session.get_inputs()[0].name, onnxruntime.OrtValue.ortvalue_from_numpy(numpy_helper.to_array(x)))
    shape = session.get_outputs()[0].shape
    y = onnxruntime.OrtValue.ortvalue_from_numpy(np.empty(shape, np.float32))
    binding.bind_ortvalue_output(session.get_outputs()[0].name, y)
    return lambda: session.run_with_iobinding(binding)


def torch_run(name, layers, batch, threads):
    import torch
    import torch._dynamo
    import torch._inductor.config

    torch.set_num_threads(threads)
    torch._inductor.config.freezing = True
    # Networks share classes: without this, the later ones count as too many versions of one and are not compiled.
    torch._dynamo.reset()
    module, x = network(name, layers, batch)
    compiled = torch.compile(module, dynamic=False)

    def run():
        with torch.no_grad():
            return compiled(x)

    with torch.no_grad():
        expected, found = module(x), run()
    if not torch.allclose(expected, found, rtol=1e-2, atol=1e-3):
        raise RuntimeError("another result than without torch.compile")
    return run


def serve(peer, threads):
    """Answers `CASE NAME LAYERS BATCH MILLISECONDS` as `burst` does, or with why not."""
    known, run = None, None
    for line in sys.stdin:
        case, name, layers, batch, millis = line.split()
        key = case if peer == "onnxruntime" else (name, layers, batch)
        try:
            if known != key:
                # A refusal is kept too: it may have taken long.
                known = key
                try:
                    if peer == "onnxruntime":
                        run = onnxruntime_run(pathlib.Path(case), threads)
                    else:
                        run = torch_run(name, tuple(map(int, layers.split(","))), int(batch), threads)
                    burst(run, 20)
                except Exception as error:
                    run = error
            if isinstance(run, Exception):
                raise run
            print(*burst(run, float(millis)), flush=True)
        except Exception as error:
            print("no", (str(error).strip().splitlines() or [type(error).__name__])[0][:200], flush=True)


class Peer(Worker):
    """A peer that keeps many networks; asked first for what it can't do."""

    def refuses(self, row):
        self.process.stdin.write(" ".join(row) + " 1\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline().strip()
        return answer[3:] or "it ended" if answer.startswith("no") or not answer else None


class Frit(Worker):
    """frit with one network."""

    def __init__(self, binary, subject, threads, bits):
        """`subject`: what `frit bench` is given, the model first."""
        flags = ["--vector-bits", str(bits)] if bits else []
        super().__init__([binary, "bench", *subject, "--serve", "--threads", str(threads), *flags], threads)
        while (line := self.process.stdout.readline()).strip() != "ready":
            if not line:
                sys.exit(f"{subject[0]}: frit bench ended: {self.process.wait()}")

    def ask(self, _, millis):
        return super().ask((), millis)


def on_cpu(process):
    """Nanoseconds that the threads of a process ran; None where the system does not say."""
    try:
        return sum(int(task.read_text().split()[0]) for task in pathlib.Path(f"/proc/{process.pid}/task").glob("*/schedstat"))
    except (OSError, ValueError, IndexError):
        return None


def rounds_of(asked, workers, rounds, threads, millis=10):
    """Microseconds of a run by worker: one number a round, `asked` names what each is asked for."""
    times = {name: [] for name in workers}
    for _ in range(rounds):
        for name, worker in workers.items():
            # Threads of the one before go to sleep.
            time.sleep(0.002)
            before = on_cpu(worker.process)
            _, middle, runs = worker.ask(asked[name], millis)
            after = on_cpu(worker.process)
            busy = threads == 1 and before is not None and after is not None and after > before
            times[name].append(((after - before) / runs if busy else middle) / 1e3)
    return times


def geomean(values):
    return math.exp(sum(map(math.log, values)) / len(values)) if values else float("nan")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--exporters", default="legacy,dynamo")
    parser.add_argument("--only", default="*", help="pattern of rows, as `afkan*`")
    parser.add_argument("--json", help="write everything to this file")
    options = parser.parse_args()
    binary, chosen = frit.binary(), []
    for name, layers, batch, bits in ROWS:
        for exporter in options.exporters.split(","):
            title = f"{name} b{batch} {exporter}" + (f" @{bits}" if bits else "")
            if fnmatch.fnmatch(title, options.only):
                chosen.append((title, (name, layers, batch, exporter), bits))
    cases = exported(CACHE, [key for _, key, _ in chosen])
    rows = [(title, cases[key], *key[:3], bits) for title, key, bits in chosen if key in cases]
    # What is timed must be right.
    verified = subprocess.run([binary, "verify", *sorted({str(row[1]) for row in rows})], capture_output=True, text=True)
    if verified.returncode:
        sys.exit(verified.stdout + verified.stderr)
    print(verified.stdout.strip().splitlines()[-1])
    records = []
    for threads in map(int, options.threads.split(",")):
        peers = {peer: Peer([sys.executable, __file__, "--serve", peer, str(threads)], threads) for peer in ("onnxruntime", "torch")}
        print(f"\n{threads} thread(s), median microseconds, and times slower than frit; {cpu()}")
        print(f"{'network':<34} {'frit':>10} {'onnxruntime':>12} {'torch':>10}   {'ort/frit':>8} {'torch/frit':>10}")
        for title, case, name, layers, batch, bits in rows:
            asked = [str(case), name, ",".join(map(str, layers)), str(batch)]
            refused = {peer: why for peer, worker in peers.items() if (why := worker.refuses(asked))}
            workers = {"frit": Frit(binary, [case], threads, bits), **{p: w for p, w in peers.items() if p not in refused}}
            rounds = rounds_of(dict.fromkeys(workers, asked), workers, options.rounds, threads)
            times = {name: sorted(each)[options.rounds // 2] for name, each in rounds.items()}
            workers["frit"].close()
            ratio = {peer: times[peer] / times["frit"] for peer in peers if peer in times}

            def cell(values, peer, width, digits):
                return f"{values[peer]:>{width}.{digits}f}" if peer in values else f"{'-':>{width}}"

            print(f"{title:<34} {times['frit']:>10.1f} {cell(times, 'onnxruntime', 12, 1)} {cell(times, 'torch', 10, 1)}   "
                  f"{cell(ratio, 'onnxruntime', 8, 2)} {cell(ratio, 'torch', 10, 2)}", flush=True)
            for peer, why in refused.items():
                print(f"  {peer}: {why}")
            records.append({"network": title, "threads": threads, "microseconds": times, "ratio": ratio, "refused": refused})
        for worker in peers.values():
            worker.close()
        for label, pattern in (("all", "*"), ("AF-KAN", "afkan*"), ("@128", "*@128"), ("others", "[!a]*")):
            chosen = [r["ratio"] for r in records if r["threads"] == threads and fnmatch.fnmatch(r["network"], pattern)]
            means = {p: geomean([r[p] for r in chosen if p in r]) for p in ("onnxruntime", "torch")}
            if chosen:
                print(f"geometric mean, {label:<8} {means['onnxruntime']:>8.2f} x onnxruntime, {means['torch']:.2f} x torch.compile")
    if options.json:
        write_report(options.json, records)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        with_packages()
        main()
