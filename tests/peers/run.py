#!/usr/bin/env python3
"""Everything that is measured side by side, in one go: products, whole networks, training steps, the cost model.

usage: run.py [--threads 1,2] [--json FOLDER]
"""
import argparse, pathlib, subprocess, sys

from matmul import with_packages

HERE = pathlib.Path(__file__).resolve().parent
PARTS = {"matmul": ["--rounds", "5"], "models": [], "train": [], "cost": []}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", default="1,2")
    parser.add_argument("--json", type=pathlib.Path, help="write what each part measured to this folder")
    options = parser.parse_args()
    for part, flags in PARTS.items():
        print(f"\n== {part} ==", flush=True)
        command = [sys.executable, HERE / f"{part}.py", "--threads", options.threads, *flags]
        if options.json:
            options.json.mkdir(parents=True, exist_ok=True)
            command += ["--json", options.json / f"{part}.json"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    with_packages()
    main()
