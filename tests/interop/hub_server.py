"""A hub on the loopback interface: the parts of huggingface.co's interface that downloading a model uses.

Small files come from the hub's own port, large ones by redirect from a second port with a signed address, as on the
real one. Every request is kept in `log`; faults are switched on by attributes.
"""
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

LARGE = (".safetensors", ".bin", ".ckpt")
SIGNATURE = "signature-that-no-log-may-show"


def etag_of(name, data):
    """(name of the blob, whether the file is a large one)"""
    if name.endswith(LARGE):
        return hashlib.sha256(data).hexdigest(), True
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest(), False


class Hub:
    def __init__(self):
        self.repos = {}       # ID: {commit: {name: bytes}}
        self.refs = {}        # ID: {branch or tag: commit}
        self.tokens = {}      # ID: token that a gated repository asks for
        self.log = []         # (port "hub" or "cdn", method, path, token or None, first byte asked for)
        self.drop_after = 0   # bytes after which every large transfer breaks off
        self.dead = False     # the second port answers 503
        self.die_after_drop = False
        self.corrupt = 0      # so many large transfers get one wrong byte
        self.announce = None  # size that is told instead of the true one
        self.answer = None    # body of /api/ instead of the true one
        self.ignore_ranges = False
        self.lock = threading.Lock()
        self.servers = [ThreadingHTTPServer(("127.0.0.1", 0), self.handler(kind)) for kind in ("hub", "cdn")]
        for server in self.servers:
            server.daemon_threads = True
            threading.Thread(target=server.serve_forever, daemon=True).start()
        self.endpoint, self.cdn = (f"http://127.0.0.1:{s.server_address[1]}" for s in self.servers)

    def add(self, repo, files, refs=("main",)):
        commit = hashlib.sha1(repr(sorted((n, hashlib.sha1(d).hexdigest()) for n, d in files.items())).encode())
        self.repos.setdefault(repo, {})[commit.hexdigest()] = files
        self.refs.setdefault(repo, {}).update({ref: commit.hexdigest() for ref in refs})
        return commit.hexdigest()

    def close(self):
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def paths(self, kind, method="GET"):
        return [path for k, m, path, _, _ in self.log if (k, m) == (kind, method)]

    def handler(hub, kind):  # noqa: N805
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *words):
                pass

            def reply(self, status, headers=(), body=b""):
                self.send_response(status)
                for key, value in dict(headers).items():
                    self.send_header(key, value)
                if "Content-Length" not in dict(headers):
                    self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def error(self, status, code):
                self.reply(status, {"X-Error-Code": code, "X-Error-Message": f"{code}!"})

            def first_byte(self):
                value = self.headers.get("Range", "bytes=0-")
                return int(value[6:].split("-")[0])

            def serve(self):
                token = self.headers.get("Authorization")
                with hub.lock:
                    hub.log.append((kind, self.command, self.path, token, self.first_byte()))
                (self.serve_hub if kind == "hub" else self.serve_cdn)()

            do_GET = do_HEAD = serve

            def find(self, repo, revision):
                """Files of a revision, or None after an error reply."""
                wanted = hub.tokens.get(repo)
                if repo not in hub.repos:
                    self.error(401 if not self.headers.get("Authorization") else 404, "RepoNotFound")
                elif wanted and self.headers.get("Authorization") != f"Bearer {wanted}":
                    self.error(403 if self.headers.get("Authorization") else 401, "GatedRepo")
                else:
                    commit = hub.refs[repo].get(revision, revision)
                    if commit in hub.repos[repo]:
                        return commit, hub.repos[repo][commit]
                    self.error(404, "RevisionNotFound")
                return None, None

            def serve_hub(self):
                parts = self.path.split("?")[0].strip("/").split("/")
                if parts[:2] == ["api", "models"] and parts[4:5] == ["revision"]:
                    commit, files = self.find("/".join(parts[2:4]), unquote("/".join(parts[5:])))
                    if files is not None:
                        text = json.dumps({"id": "/".join(parts[2:4]), "sha": commit,
                                           "siblings": [{"rfilename": n} for n in files]}).encode()
                        self.reply(200, {"Content-Type": "application/json"},
                                   text if hub.answer is None else hub.answer)
                elif parts[2:3] == ["resolve"]:
                    commit, files = self.find("/".join(parts[:2]), unquote(parts[3]))
                    if files is not None:
                        self.serve_file(commit, files, unquote("/".join(parts[4:])))
                else:
                    self.error(404, "EntryNotFound")

            def serve_file(self, commit, files, name):
                if name not in files:
                    self.error(404, "EntryNotFound")
                    return
                etag, large = etag_of(name, files[name])
                size = len(files[name]) if hub.announce is None else hub.announce
                if large:
                    self.reply(302, {"X-Repo-Commit": commit, "X-Linked-Etag": f'"{etag}"', "X-Linked-Size": size,
                                     "Location": f"{hub.cdn}/{etag}?X-Signature={SIGNATURE}"})
                else:
                    self.reply(200, {"X-Repo-Commit": commit, "ETag": f'"{etag}"',
                                     "Content-Length": str(len(files[name]))}, files[name])

            def serve_cdn(self):
                etag = self.path.split("?")[0].strip("/")
                data = next((d for commits in hub.repos.values() for files in commits.values()
                             for n, d in files.items() if etag_of(n, d)[0] == etag), None)
                if hub.dead or data is None:
                    self.error(503 if hub.dead else 404, "")
                    return
                first = 0 if hub.ignore_ranges else self.first_byte()
                if first > len(data):
                    self.reply(416, {"Content-Range": f"bytes */{len(data)}"})
                    return
                part = data[first:]
                with hub.lock:
                    if hub.corrupt > 0 and part:
                        hub.corrupt -= 1
                        part = part[:-1] + bytes([part[-1] ^ 1])
                headers = {"Content-Length": str(len(part))}
                if "Range" in self.headers and not hub.ignore_ranges:
                    headers["Content-Range"] = f"bytes {first}-{len(data) - 1}/{len(data)}"
                self.send_response(206 if "Content-Range" in headers else 200)
                for key, value in headers.items():
                    self.send_header(key, value)
                self.end_headers()
                if self.command == "HEAD":
                    return
                if 0 < hub.drop_after < len(part):
                    self.wfile.write(part[:hub.drop_after])
                    hub.dead = hub.dead or hub.die_after_drop
                    self.close_connection = True
                else:
                    self.wfile.write(part)

        return Handler
