#!/usr/bin/env python3
"""Compares dreamrun's use of the Hugging Face hub with huggingface_hub and diffusers, against a loopback server.

    hub_peers.py BUILD_DIR        (needs huggingface_hub, diffusers)

- a model ID is downloaded into the cache: the files that are needed and no others, equal bytes, huggingface_hub's
  layout; huggingface_hub and diffusers find the model there without a network; we find what huggingface_hub put there
- the token goes to the hub and never to the server of large files, and stands in no output
- transfers that break off, servers that die, wrong bytes, wrong sizes, lists that lie, missing permission
- two processes at once, two ranks, --vae
Ends with "N passed, N failed, N skipped"; exit status 1 when something failed.
"""
import json
import os
import shutil
import subprocess
import sys
import tempfile

os.environ["CUDA_VISIBLE_DEVICES"] = ""
os.environ["HF_HUB_OFFLINE"] = "1"  # this process reads caches only

from diffusers import StableDiffusionPipeline
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save

import hub_server
import tiny_models

if os.geteuid() == 0:  # a container's root; Open MPI wants to be asked
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT", "1")
    os.environ.setdefault("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1")

TOKEN = "hf_a-token-that-no-log-may-show"
PEER = "import sys; from huggingface_hub import snapshot_download; print(snapshot_download(sys.argv[1]))"


class Bench:
    def __init__(self, build, folder):
        self.bin = os.path.join(build, "bin")
        self.folder = folder
        self.hub = hub_server.Hub()
        self.passed = self.failed = self.skipped = self.caches = 0
        self.env = {}

    def check(self, question, good, detail=""):
        if good:
            self.passed += 1
        else:
            self.failed += 1
            print(f"FAILED {question} {detail}")

    def fresh(self):
        """An empty cache; faults off."""
        self.caches += 1
        self.home = os.path.join(self.folder, f"home{self.caches}")
        self.env = {**{k: v for k, v in os.environ.items() if not k.startswith(("HF_", "HUGGING", "TRANSFORMERS"))},
                    "HF_ENDPOINT": self.hub.endpoint, "HF_HOME": self.home, "HF_HUB_DISABLE_XET": "1",
                    "no_proxy": "127.0.0.1", "HF_HUB_DISABLE_TELEMETRY": "1"}
        hub = self.hub
        hub.log.clear()
        hub.drop_after = hub.corrupt = 0
        hub.dead = hub.die_after_drop = hub.ignore_ranges = False
        hub.announce = hub.answer = None
        return os.path.join(self.home, "hub")

    def run(self, program, *words, **env):
        done = subprocess.run([os.path.join(self.bin, program), *words], capture_output=True, text=True, check=False,
                              env={**self.env, **env}, cwd=self.folder)
        text = done.stdout + done.stderr
        self.check(f"{program} {words}: no secrets in the output",
                   TOKEN not in text and hub_server.SIGNATURE not in text, text)
        return done.returncode, text

    def inspect(self, what, **env):
        return self.run("dreamrun_tools", "inspect", what, **env)

    def expect(self, question, code, part, what, **env):
        got, text = self.inspect(what, **env)
        self.check(question, got == code and part in text, f"exit code {got}, expected {code} and '{part}':\n{text}")
        return text

    def peer(self, what):
        return subprocess.run([sys.executable, "-c", PEER, what], capture_output=True, text=True, check=False,
                              env=self.env)


def read_folder(folder):
    files = {}
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            with open(path, "rb") as f:
                files[os.path.relpath(path, folder)] = f.read()
    return files


def half(source):
    """A half-precision variant of the U-Net's file."""
    state = load_file(os.path.join(source, "unet", "diffusion_pytorch_model.safetensors"))
    return save({k: v.half() for k, v in state.items()}, {"format": "pt"})


def incomplete(cache):
    return [os.path.join(base, name) for base, _, names in os.walk(cache) for name in names
            if name.endswith(".incomplete")]


def same_state(a, b):
    def state(pipe):
        return {f"{n}.{k}": v for n in ("unet", "vae", "text_encoder") for k, v in getattr(pipe, n).state_dict().items()}
    one, two = state(a), state(b)
    return one.keys() == two.keys() and all((one[k] == two[k]).all() for k in one)


def check_download(bench, files, commit):
    cache = bench.fresh()
    extra = {"README.md", "unet/extra.txt", "unet/diffusion_pytorch_model.fp16.safetensors"}
    text = bench.expect("a model ID is downloaded", 0, "Stable Diffusion 1.x, Diffusers directory", "tiny/sd1",
                        HF_TOKEN=TOKEN)
    bench.check("the commit and progress are told", f"commit {commit[:12]}" in text and "download 100%" in text, text)
    repo = os.path.join(cache, "models--tiny--sd1")
    got = read_folder(os.path.join(repo, "snapshots", commit))
    want = {n: d for n, d in files.items() if n not in extra}
    bench.check("the needed files and no others, byte by byte", got == want, set(got) ^ set(want))
    link = os.readlink(os.path.join(repo, "snapshots", commit, "unet", "config.json"))
    bench.check("links are relative", link.startswith("../../../blobs/"), link)
    with open(os.path.join(repo, "refs", "main"), encoding="utf-8") as f:
        bench.check("refs/main", f.read() == commit)
    bench.check("nothing incomplete is left", not incomplete(cache))
    tokens = {(kind, token) for kind, _, _, token, _ in bench.hub.log}
    bench.check("the token goes to the hub only", tokens == {("hub", f"Bearer {TOKEN}"), ("cdn", None)}, tokens)

    bench.hub.log.clear()
    bench.expect("the cached model", 0, "cached", "tiny/sd1")
    bench.expect("the cached model by its commit", 0, "cached", f"tiny/sd1@{commit}", HF_HUB_OFFLINE="1")
    bench.expect("another name of the cache", 0, "cached", "tiny/sd1", HF_HOME="/nowhere", HF_HUB_CACHE=cache)
    bench.check("needs no network", not bench.hub.log, bench.hub.log)

    path = snapshot_download("tiny/sd1", cache_dir=cache, local_files_only=True)
    bench.check("huggingface_hub finds it", path == os.path.join(repo, "snapshots", commit), path)
    ours = StableDiffusionPipeline.from_pretrained("tiny/sd1", cache_dir=cache, local_files_only=True)
    source = StableDiffusionPipeline.from_pretrained(os.path.join(bench.folder, "sd1"))
    bench.check("diffusers loads it from there", same_state(ours, source))
    bench.peer("tiny/sd1")
    fetched = [p for p in bench.hub.paths("cdn") if hub_server.etag_of(
        "x.bin", files["unet/diffusion_pytorch_model.safetensors"])[0] in p]
    bench.check("huggingface_hub does not fetch it again", not fetched, fetched)


def check_peer_cache(bench, commit):
    bench.fresh()
    done = bench.peer("tiny/sd1")
    bench.check("huggingface_hub downloads from this server", done.returncode == 0 and commit in done.stdout,
                done.stdout + done.stderr)
    bench.hub.log.clear()
    bench.expect("we find what it put there", 0, "Stable Diffusion 1.x", "tiny/sd1", HF_HUB_OFFLINE="1")
    bench.check("without the network", not bench.hub.log)


def check_revisions(bench, first, second):
    cache = bench.fresh()
    for revision, commit in (("v1", first), ("main", second), ("a/branch", second), (first, first)):
        bench.expect(f"revision {revision}", 0, f"commit {commit[:12]}", f"tiny/two@{revision}")
    bench.check("refs", sorted(os.listdir(os.path.join(cache, "models--tiny--two", "refs"))) == ["a", "main", "v1"])
    bench.expect("an unknown revision", 64, "no revision 'v9'", "tiny/two@v9")
    bench.expect("an unknown model", 64, "Check the spelling", "tiny/none")
    bench.expect("the same with a token", 64, "has no model of this name", "tiny/none", HF_TOKEN=TOKEN)
    bench.hub.log.clear()
    os.makedirs(os.path.join(bench.folder, "tiny"), exist_ok=True)
    bench.expect("no ID", 64, "no such file or directory", "one/two/three")
    bench.expect("a path with an error", 64, "did you mean 'sd1'?", "sd2")
    shutil.copytree(os.path.join(bench.folder, "sd1"), os.path.join(bench.folder, "tiny", "two"))
    bench.expect("an existing path wins", 0, "tiny/two: Stable", "tiny/two")
    bench.check("neither asks the network", not bench.hub.log, bench.hub.log)
    shutil.rmtree(os.path.join(bench.folder, "tiny"))


def check_permission(bench):
    cache = bench.fresh()
    bench.expect("a gated model without a token", 64, "give your token in HF_TOKEN", "tiny/gated")
    bench.expect("with a wrong one", 64, "to your token: GatedRepo!: accept", "tiny/gated", HF_TOKEN="hf_other")
    bench.check("nothing was written", not os.path.exists(cache), cache)
    bench.expect("with the right one", 0, "Stable Diffusion 1.x", "tiny/gated", HF_TOKEN=f" {TOKEN}\n")
    bench.fresh()
    os.makedirs(bench.home)
    with open(os.path.join(bench.home, "token"), "w", encoding="utf-8") as f:
        f.write(TOKEN + "\n")
    bench.expect("with the token file", 0, "Stable Diffusion 1.x", "tiny/gated")


def check_offline(bench):
    bench.fresh()
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        bench.expect(f"{name}=1 without a cache", 64, "not in the local cache", "tiny/sd1", **{name: "1"})
    bench.check("asks nobody", not bench.hub.log)
    bench.expect("no server", 71, "cannot be downloaded", "tiny/sd1", HF_ENDPOINT="http://127.0.0.1:9")
    bench.expect("no address", 64, "expected an address", "tiny/sd1", HF_ENDPOINT="ftp://hub")
    bench.expect("a password in the address", 64, "belongs into HF_TOKEN", "tiny/sd1",
                 HF_ENDPOINT=f"http://me:{TOKEN}@hub")


def check_broken_transfers(bench, files):
    unet = files["unet/diffusion_pytorch_model.safetensors"]
    cache = bench.fresh()
    bench.hub.drop_after = len(unet) // 3
    bench.expect("transfers that break off go on", 0, "Stable Diffusion 1.x", "tiny/sd1")
    bench.check("behind the last byte", any(first == len(unet) // 3 for k, _, _, _, first in bench.hub.log if k == "cdn"),
                bench.hub.log)

    cache = bench.fresh()
    bench.hub.drop_after, bench.hub.die_after_drop = 100000, True
    bench.expect("a server that dies", 71, "the next run goes on there", "tiny/sd1")
    left = incomplete(cache)
    bench.check("leaves what it sent", len(left) == 1 and os.path.getsize(left[0]) == 100000, left)
    bench.check("and no name of the revision", not os.path.exists(os.path.join(cache, "models--tiny--sd1", "refs")))
    bench.expect("incomplete and offline", 64, "not in the local cache", "tiny/sd1", HF_HUB_OFFLINE="1")
    shutil.copytree(bench.home, bench.home + "peer", symlinks=True)
    bench.hub.drop_after, bench.hub.die_after_drop, bench.hub.dead = 0, False, False
    bench.hub.log.clear()
    bench.expect("the next run", 0, "Stable Diffusion 1.x", "tiny/sd1")
    starts = [first for kind, _, _, _, first in bench.hub.log if kind == "cdn"]
    bench.check("goes on there", starts.count(100000) == 1, starts)
    bench.env["HF_HOME"] = bench.home + "peer"
    done = bench.peer("tiny/sd1")
    bench.check("huggingface_hub goes on with ours", done.returncode == 0, done.stderr)

    bench.fresh()
    bench.hub.drop_after, bench.hub.die_after_drop = 100000, True
    bench.check("huggingface_hub breaks off", bench.peer("tiny/sd1").returncode != 0)
    bench.hub.drop_after, bench.hub.die_after_drop, bench.hub.dead, bench.hub.ignore_ranges = 0, False, False, True
    bench.expect("a server without ranges sends all again", 0, "Stable Diffusion 1.x", "tiny/sd1")


def check_damage(bench):
    bench.fresh()
    bench.hub.corrupt = 1
    bench.expect("one wrong byte", 0, "fetching them once more", "tiny/sd1")
    cache = bench.fresh()
    bench.hub.corrupt = 1000
    bench.expect("wrong bytes twice", 65, "did not have the hash", "tiny/sd1")
    blobs = os.path.join(cache, "models--tiny--sd1", "blobs")
    bench.check("wrong bytes become no blob", all(len(n) == 40 or n.endswith(".incomplete") for n in os.listdir(blobs)),
                os.listdir(blobs))
    bench.fresh()
    bench.hub.announce = 1 << 60
    bench.expect("no room on the disk", 71, "make room", "tiny/sd1")
    for answer, part in ((b"<html>", "line 1"), (b"{}", "sha"), (b'{"sha": "x", "siblings": []}', "40 hex digits"),
                         (json.dumps({"sha": "a" * 40, "siblings": [{"rfilename": "../../x/unet/config.json"}]}).encode(),
                          "model_index.json")):
        cache = bench.fresh()
        bench.hub.answer = answer
        bench.expect(f"the answer {answer}", 65, part, "tiny/sd1")
        bench.check("writes nothing", not os.path.exists(cache))
    bench.fresh()
    bench.expect("single files are named", 65, "tiny/single/model.safetensors", "tiny/single")
    bench.expect("a single file", 0, "Stable Diffusion 1.x checkpoint", "tiny/single/model.safetensors")
    bench.expect("again", 0, "cached", "tiny/single@main/model.safetensors", HF_HUB_OFFLINE="1")


def check_two_processes(bench):
    bench.fresh()
    words = [os.path.join(bench.bin, "dreamrun_tools"), "inspect", "tiny/sd1"]
    both = [subprocess.Popen(words, env=bench.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            for _ in range(2)]
    texts = [p.communicate()[0] for p in both]
    bench.check("two processes at once", all(p.returncode == 0 for p in both), texts)
    got = bench.hub.paths("cdn")
    bench.check("fetch each file once", len(got) == len(set(got)) == 3, got)


def check_training(bench):
    bench.fresh()
    data = os.path.join(bench.folder, "data")
    bench.run("dreamrun_tools", "make_pictures", data)
    folder = next((base for base, dirs, _ in os.walk(data) if any(d[:1].isdigit() for d in dirs)), data)
    words = ["--pretrained_model_name_or_path=tiny/sd1", "--vae=tiny/vae", f"--train_data_dir={folder}",
             "--resolution=64", "--max_train_steps=1", "--train_batch_size=1", "--save_precision=float",
             f"--output_dir={bench.folder}/out", "--output_name=m", "--seed=1"]
    code, text = bench.run("train_db", *words)
    bench.check("train_db with two IDs", code == 0 and os.path.exists(f"{bench.folder}/out/m/unet"), text)
    bench.check("of a VAE's ID only the VAE", not [p for p in bench.hub.paths("hub", "HEAD") if "vae/resolve" in p
                                                 and "vae/" not in p.split("resolve/")[1]])
    if shutil.which("mpirun") is None:
        bench.skipped += 1
        return
    bench.fresh()
    done = subprocess.run(["mpirun", "-n", "2", "--oversubscribe", os.path.join(bench.bin, "train_db"), *words],
                          env=bench.env, capture_output=True, text=True, check=False)
    bench.check("two ranks", done.returncode == 0, done.stdout + done.stderr)
    bench.check("one of which asks", len([p for p in bench.hub.paths("hub") if p.startswith("/api/")]) == 2,
                bench.hub.paths("hub"))


def main():
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(os.path.abspath(sys.argv[1]), folder)
        try:
            source = os.path.join(folder, "sd1")
            tokenizer = tiny_models.write_tokenizer(sys.argv[1], os.path.join(folder, "tokenizer"), False)
            tiny_models.write_model(source, tiny_models.SD1, tokenizer, 0)
            model = read_folder(source)
            files = {**model, "README.md": b"a model", "unet/extra.txt": b"x" * 100,
                     "unet/diffusion_pytorch_model.fp16.safetensors": half(source)}
            commit = bench.hub.add("tiny/sd1", files)
            bench.hub.add("tiny/gated", model)
            bench.hub.tokens["tiny/gated"] = TOKEN
            first = bench.hub.add("tiny/two", model, ("v1",))
            second = bench.hub.add("tiny/two", {**model, "model_index.json": model["model_index.json"] + b"\n"},
                                   ("main", "a/branch"))
            bench.hub.add("tiny/vae", model)
            bench.fresh()
            single = os.path.join(folder, "model.safetensors")
            bench.run("dreamrun_tools", "init_model", "tiny", "--format", "safetensors", single)
            with open(single, "rb") as f:
                bench.hub.add("tiny/single", {"model.safetensors": f.read(), "README.md": b"one file"})
            check_download(bench, files, commit)
            check_peer_cache(bench, commit)
            check_revisions(bench, first, second)
            check_permission(bench)
            check_offline(bench)
            check_broken_transfers(bench, model)
            check_damage(bench)
            check_two_processes(bench)
            check_training(bench)
        finally:
            bench.hub.close()
    print(f"{bench.passed} passed, {bench.failed} failed, {bench.skipped} skipped")
    return 1 if bench.failed else 0


if __name__ == "__main__":
    sys.exit(main())
