"""A small engine over transformers: token ids in and out on /v1/completions, adapters while it runs, texts on
/v1/chat/completions. It decodes the plain way, and can be told to be wrong.

    model_engine.py --uds PATH --model DIRECTORY --name NAME [--enable-lora] [--forgets] [--texts-only]
        [--dies-once FILE] [--busy N] [--room N] [--wrong WHAT]

`--busy`: so many calls are answered 503. `--room`: what /v1/models says is the most tokens; longer prompts
are refused. `--wrong`: `abort` ends every answer so, `few` leaves out log-probabilities, `hot` gives them
after temperature, `prompt` adds a token to the prompt, `list` replies with a list.
"""

import argparse
import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from tests.plain_engine import Calls, OnSocket

LIVES = 5  # completions until `--dies-once` ends it


class Model:
    """The base, and the adapters on it by name."""

    def __init__(self, given: argparse.Namespace) -> None:
        torch.set_num_threads(1)
        self.given, self.lock, self.answered = given, threading.Lock(), 0
        self.tokenizer = AutoTokenizer.from_pretrained(given.model)
        self.by_name = {given.name: self.load(None)}

    def load(self, adapter: str | None) -> Any:
        model = AutoModelForCausalLM.from_pretrained(self.given.model, dtype=torch.float32)
        if adapter is not None and not self.given.forgets:
            from peft import PeftModel

            model = PeftModel.from_pretrained(model, adapter).merge_and_unload()
        return model.eval()

    @torch.no_grad()
    def complete(self, body: dict[str, Any]) -> dict[str, Any]:
        model, ids, logprobs = self.by_name[body["model"]], list(body["prompt"]), list[float]()
        generator = torch.Generator().manual_seed(body["seed"])
        own, finish = list[int](), "length"
        for _ in range(body["max_tokens"]):
            said = model(input_ids=torch.tensor([[*ids, *own]])).logits[0, -1].log_softmax(-1)
            hot = body["temperature"]
            chances = (said / (hot or 1.0)).softmax(-1)
            if self.given.wrong == "hot":
                said = chances.log()
            token = int(chances.argmax() if hot == 0 else chances.multinomial(1, generator=generator))
            own.append(token)
            logprobs.append(float(said[token]))
            if token in body["stop_token_ids"]:
                finish = "stop"
                break
        wrong = self.given.wrong
        finish = "abort" if wrong == "abort" else finish
        choice = {
            "token_ids": own,
            "prompt_token_ids": ids + [1] * (wrong == "prompt"),
            "finish_reason": finish,
        }
        return choice | {"logprobs": {"token_logprobs": logprobs[wrong == "few" :]}}


class ModelCalls(Calls):
    """The routes of the engine."""

    def do_GET(self) -> None:  # noqa: N802
        served = [{"id": model.given.name, "max_model_len": model.given.room or None}]
        self.reply(200, {"data": served} if self.path == "/v1/models" else {})

    def do_POST(self) -> None:  # noqa: N802
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        given = model.given
        with model.lock:
            if given.busy > 0:
                given.busy -= 1
                return self.reply(503, {"error": "busy"})
            if given.wrong == "list":
                return self.reply(200, [])
            if given.room and body.get("max_tokens", 0) + len(body.get("prompt", ())) > given.room:
                return self.reply(400, {"error": f"at most {given.room} tokens"})
            if self.path == "/v1/load_lora_adapter" and given.enable_lora:
                model.by_name[body["lora_name"]] = model.load(body["lora_path"])
                return self.reply(200, "Success")
            if self.path == "/v1/completions" and not given.texts_only:
                self.die_once()
                said = {"choices": [model.complete(body)], "system_fingerprint": "small engine 1"}
                return self.reply(200, said)
            if self.path == "/v1/chat/completions":
                said = {"message": {"role": "assistant", "content": "so = 4"}, "finish_reason": "stop"}
                used = {"prompt_tokens": 3, "completion_tokens": 4}
                return self.reply(200, {"choices": [said], "usage": used})
        return self.reply(404, {"error": "no such route"})

    def die_once(self) -> None:
        model.answered += 1
        mark = model.given.dies_once
        if mark and model.answered > LIVES and not Path(mark).exists():
            Path(mark).write_text("")
            os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    for name in ("--uds", "--model", "--name", "--dies-once", "--wrong"):
        parser.add_argument(name)
    for count in ("--busy", "--room"):
        parser.add_argument(count, type=int, default=0)
    for flag in ("--enable-lora", "--forgets", "--texts-only"):
        parser.add_argument(flag, action="store_true")
    model = Model(parser.parse_args())
    OnSocket(parser.parse_args().uds, ModelCalls).serve_forever()
