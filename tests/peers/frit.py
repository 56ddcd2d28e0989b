"""The frit binary, for the scripts beside this file."""
import json, os, pathlib, subprocess, tempfile

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def binary():
    """`$FRIT`, or the release build of this tree."""
    if given := os.environ.get("FRIT"):
        return given
    command = ["cargo", "build", "--release", "-p", "frit-cli", "--message-format=json"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    artifacts = (json.loads(line) for line in built.splitlines() if line.startswith("{"))
    return next(a["executable"] for a in artifacts if a.get("executable") and a["target"]["name"] == "frit")


def record(frit, *arguments):
    """What a command writes as JSON, or the first line of its error."""
    with tempfile.NamedTemporaryFile(suffix=".json") as file:
        done = subprocess.run([frit, *arguments, f"--json={file.name}"], capture_output=True, text=True)
        if done.returncode:
            return None, done.stderr.strip().splitlines()[0]
        return json.loads(pathlib.Path(file.name).read_text()), None
