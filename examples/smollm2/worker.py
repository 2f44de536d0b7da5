"""The process that holds the model: mistral.rs, driven by JSON lines over an inherited socket.

It is a process of its own because mistral.rs keeps Python's global lock while it loads, and the
server must answer its health checks meanwhile. Arguments: how many sequences may run at once, and
the socket's file descriptor. Messages to this process, one JSON object a line:

    {"id": 1, "messages": [...], "max_tokens": 16, "temperature": 0.0, ...}     start a request
    {"id": 1, "cancel": true}                                                   stop it

and from it:

    {"loaded": {"context": 8192, "seconds": 0.9}}                     once, ready for requests
    {"id": 1, "prompt_tokens": 37}                                    a request has begun
    {"id": 1, "text": " Paris"}                                       one for each token
    {"id": 1, "finish": "stop", "prompt_tokens": 37, "completion_tokens": 8}
    {"id": 1, "error": "a sentence", "status": 400}

The end of the socket is the end of the process.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, TextIO

import mistralrs

RAW_ROLE = "raw"  # a message of this role is the prompt itself, without the chat template


class Worker:
    """One loaded model and the requests that run on it, each in a thread of its own."""

    def __init__(self, model_dir: Path, out: TextIO, *, slots: int) -> None:
        started = time.monotonic()
        self._out = out
        self._out_lock = threading.Lock()
        self._send_lock = threading.Lock()
        self._cancelled: set[int] = set()
        template = raw_template(model_dir)
        self._runner = mistralrs.Runner(
            which=mistralrs.Which.Plain(model_id=str(model_dir), dtype=mistralrs.ModelDType.Auto),
            max_seqs=slots,
            prefix_cache_n=0,
            jinja_explicit=str(template),
        )
        template.unlink()
        context = self._runner.max_sequence_length()
        self._say(loaded={"context": context, "seconds": time.monotonic() - started})

    def take(self, message: dict[str, Any]) -> None:
        """Start or stop the request that a message names."""
        if message.get("cancel"):
            self._cancelled.add(message["id"])
        else:
            threading.Thread(target=self._serve, args=(message,), daemon=True).start()

    def _serve(self, message: dict[str, Any]) -> None:
        number = message.pop("id")
        try:
            self._stream(number, message)
        except ValueError as error:  # what mistral.rs raises for a request it refuses
            self._say(id=number, error=f"The engine refused the request: {error}", status=400)
        except Exception as error:
            self._say(id=number, error=f"The engine failed: {error}", status=500)
        finally:
            self._cancelled.discard(number)

    def _stream(self, number: int, options: dict[str, Any]) -> None:
        text = "".join(f"{m['role']}\n{m['content']}\n" for m in options["messages"])
        request = mistralrs.ChatCompletionRequest(model="default", stream=True, **options)
        with self._send_lock:  # two threads in the runner at once raise "Already borrowed"
            tokens = len(self._runner.tokenize_text(text, True, None))
            chunks = self._runner.send_chat_completion_request(request)
        self._say(id=number, prompt_tokens=tokens)
        for chunk in chunks:
            if number in self._cancelled:
                return  # dropping the iterator ends the sequence in the engine
            choice = chunk.choices[0]
            if choice.delta.content:
                self._say(id=number, text=choice.delta.content)
            if choice.finish_reason:
                self._say(
                    id=number,
                    finish=choice.finish_reason,
                    prompt_tokens=chunk.usage.prompt_tokens,
                    completion_tokens=chunk.usage.completion_tokens,
                )

    def _say(self, **message: Any) -> None:
        with self._out_lock:
            self._out.write(json.dumps(message) + "\n")
            self._out.flush()


def raw_template(model_dir: Path) -> Path:
    """Write the model's chat template, extended by the raw role, and return its path."""
    config = json.loads((model_dir / "tokenizer_config.json").read_text(encoding="utf-8"))
    raw = f"{{% if messages[0]['role'] == '{RAW_ROLE}' %}}{{{{ messages[0]['content'] }}}}"
    handle, path = tempfile.mkstemp(suffix=".jinja")
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(f"{raw}{{% else %}}{config['chat_template']}{{% endif %}}")
    return Path(path)


def main() -> None:
    """Load the model, then serve messages until the server closes its end."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the server decides when to end
    slots, descriptor = map(int, sys.argv[1:])
    channel = socket.socket(fileno=descriptor)
    model_dir = Path(os.environ["GLOWPLUG_MODEL_DIR"])
    worker = Worker(model_dir, channel.makefile("w"), slots=slots)
    for line in channel.makefile("r"):
        worker.take(json.loads(line))
    os._exit(0)  # without waiting for sequences that nobody reads


if __name__ == "__main__":
    main()
