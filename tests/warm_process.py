"""A process that has imported what a bundle needs, and forks for each proof: seconds of imports are paid once a worker.

The fork has loaded no bundle and shares nothing with the test, so the proof proves what it does in a process of its own;
that the real one starts and answers is asked by the tests marked `fresh_process`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SERVER = """
import json, os, sys, traceback
import torch, transformers
import headrace.bundle.proof as proof
import headrace.backbones.transformer, transformers.models.bert.modeling_bert
for line in sys.stdin:
    scratch, path = json.loads(line)
    child = os.fork()
    if child == 0:
        code = 1
        sys.path[:0] = path
        with open(os.path.join(scratch, "stderr"), "w", errors="replace") as sys.stderr:
            try:
                proof.answer_proof(scratch)
                code = 0
            except SystemExit as error:
                print(error.code, file=sys.stderr)
            except BaseException:
                traceback.print_exc()
        os._exit(code)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class WarmProcess:
    """Answers as `headrace.bundle.proof._run` does."""

    def __init__(self) -> None:
        self._server: subprocess.Popen[str] | None = None

    def run(self, scratch: str) -> tuple[int, str]:
        if self._server is None:
            self._server = subprocess.Popen(
                [sys.executable, "-P", "-c", SERVER],
                env={**os.environ, "HF_HUB_OFFLINE": "1", "CUDA_VISIBLE_DEVICES": ""},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        path = [place for place in os.environ.get("PYTHONPATH", "").split(os.pathsep) if place]
        self._server.stdin.write(f"{json.dumps([scratch, path])}\n")
        self._server.stdin.flush()
        answer = self._server.stdout.readline().strip()
        return int(answer), Path(scratch, "stderr").read_text("utf-8")

    def close(self) -> None:
        if self._server is not None:
            self._server.communicate()
