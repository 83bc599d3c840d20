"""One renderer from question and answer to token ids and spans, for scoring, training and evaluation alike.

Everything goes through the student's own chat template. The prompt rendered with the generation prompt must be a
literal prefix of the whole conversation, or the student would be trained on text it never sees when it generates.

Spans (0-based, end exclusive), for ids of length T:
    prompt   [0, prompt_length)            what generation starts from
    answer   [prompt_length, answer_end)   what training puts loss on, the end-of-turn token included
The template's text after the end-of-turn token (ChatML's newline) is in neither.

`compat="reference"` reproduces the SCAS authors' program: text tokenised with special tokens on (two BOS on some
tokenizers), a default system text, and an answer span that runs to the end of the sequence.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from cluster.errors import BadInput

Compat = Literal["ours", "reference"]
RENDERING_VERSION = 1
REFERENCE_SYSTEM = "You are a helpful assistant."
PLAIN_TEMPLATE = (
    "{% for m in messages %}{{ m['content'] }}{% if m['role'] == 'assistant' %}{{ eos_token }}{% else %}\n{% endif %}{% endfor %}"
)
PROBES = (("2+2?", "4"), ("Say <hi> & go.", "first line\nsecond  line"), ("naïve – 数?", "$x^{2}$ \\boxed{7}"))


# What templates that print today's date get instead: the same question must give the same ids tomorrow.
FIXED_DATE = "26 Jul 2024"
FIXED_DATE_MACRO = "{%- macro strftime_now(pattern) -%}" + FIXED_DATE + "{%- endmacro -%}"


class Unrenderable(BadInput):
    """One row that cannot be rendered faithfully; `state` is its name in the ledger."""

    @property
    def state(self) -> str:
        return "unrenderable"


@dataclass(frozen=True)
class Rendered:
    """Token ids of one conversation, with `prompt_length` and `answer_end` in tokens."""

    ids: tuple[int, ...]
    prompt_length: int
    answer_end: int

    @property
    def length(self) -> int:
        return len(self.ids)


class Renderer:
    """Turns a question and an answer into ids and spans through one tokenizer's chat template."""

    def __init__(self, tokenizer: Any, chat_template: str | None = None, compat: Compat = "ours") -> None:
        self.tokenizer, self.compat = tokenizer, compat
        self.template = _choose_template(tokenizer, chat_template)
        self._dated = FIXED_DATE_MACRO + self.template if "strftime_now" in self.template else self.template
        marked = {i: str(t) for i, t in getattr(tokenizer, "added_tokens_decoder", {}).items() if t.special}
        self.special_ids = frozenset(tokenizer.all_special_ids) | frozenset(marked)
        self._special_texts = tuple(sorted({text for text in [*tokenizer.all_special_tokens, *marked.values()] if text}))

    def _text(self, messages: list[dict[str, str]], generation: bool) -> str:
        try:
            text = self.tokenizer.apply_chat_template(
                messages, chat_template=self._dated, add_generation_prompt=generation, tokenize=False, date_string=FIXED_DATE
            )
        except Exception as error:  # jinja raises whatever the template's author wrote into it
            raise Unrenderable("the chat template refuses this conversation", error, "", "look at the template") from error
        return str(text)

    def _messages(self, question: str, system: str | None) -> list[dict[str, str]]:
        if system is None and self.compat == "reference":
            system = REFERENCE_SYSTEM
        head = [] if system is None else [{"role": "system", "content": system}]
        return [*head, {"role": "user", "content": question}]

    def _encode(self, text: str, *, start: bool) -> list[int]:
        """Encode text; `start` adds the BOS that the tokenizer would add, unless the template already wrote one."""
        if self.compat == "reference":
            return list(self.tokenizer(text, add_special_tokens=start)["input_ids"])
        ids = list(self.tokenizer(text, add_special_tokens=False)["input_ids"])
        if start and self._adds_bos and (not ids or ids[0] != self.tokenizer.bos_token_id):
            ids.insert(0, self.tokenizer.bos_token_id)
        return ids

    @cached_property
    def _adds_bos(self) -> bool:
        bos = self.tokenizer.bos_token_id
        return bos is not None and bos in self.tokenizer("a")["input_ids"][:1]

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a turn: the tokenizer's EOS and whatever the template writes after an answer."""
        rendered = self.conversation(*PROBES[0])
        ends = {rendered.ids[rendered.answer_end - 1]} & self.special_ids
        return frozenset(ends | {i for i in [self.tokenizer.eos_token_id] if i is not None})

    def prompt(self, question: str, system: str | None = None) -> tuple[int, ...]:
        """Token ids from which an answer is generated."""
        self._refuse_markers(question, "question")
        self._refuse_markers(system or "", "system text")
        return tuple(self._encode(self._text(self._messages(question, system), True), start=True))

    def conversation(self, question: str, answer: str, system: str | None = None) -> Rendered:
        """Render a question with its answer.

        Raises:
            Unrenderable: the prompt is not a literal prefix, the answer does not come back out of its span, or a
                text holds one of the tokenizer's special tokens, which would forge a turn.
        """
        for text, which in ((question, "question"), (system or "", "system text"), (answer, "answer")):
            self._refuse_markers(text, which)
        messages = self._messages(question, system)
        prompt_text = self._text(messages, True)
        whole_text = self._text([*messages, {"role": "assistant", "content": answer}], False)
        if not whole_text.startswith(prompt_text):
            raise Unrenderable(
                "the prompt with its generation prompt is not a literal prefix of the whole conversation",
                f"prompt ending {prompt_text[-30:]!r}, conversation {whole_text[: len(prompt_text)][-30:]!r}",
                "the same text up to the answer",
                "give a template whose generation prompt is what it writes before an answer",
            )
        prompt = self._encode(prompt_text, start=True)
        whole = self._encode(whole_text, start=True)
        if self.compat == "reference":
            return Rendered(tuple(whole), len(prompt), len(whole))
        completion_text = whole_text[len(prompt_text) :]
        if whole[: len(prompt)] != prompt:  # a token straddles the border: the student generates from `prompt`, so keep that
            whole = prompt + self._encode(completion_text, start=False)
        return self._with_end_of_turn(whole, len(prompt), completion_text, answer)

    def _with_end_of_turn(self, ids: list[int], prompt_length: int, completion: str, answer: str) -> Rendered:
        """Find where the turn ends; append EOS where the template writes no end."""
        kept = answer.strip()
        at = completion.find(kept)
        if at < 0 or not kept:
            raise Unrenderable(
                "the template does not keep the answer", completion[:60], "the answer's text", "use a template that keeps it"
            )
        head_specials = sum(completion[:at].count(text) for text in self._special_texts)
        specials = [i for i in range(prompt_length, len(ids)) if ids[i] in self.special_ids]
        if len(specials) > head_specials:
            end = specials[head_specials] + 1
        else:
            if self.tokenizer.eos_token_id is None:
                raise Unrenderable("neither the template nor the tokenizer has an end-of-turn token", "", "an eos_token", "set one")
            ids, end = [*ids, self.tokenizer.eos_token_id], len(ids) + 1
        if kept not in self.tokenizer.decode(ids[prompt_length:end]):
            raise Unrenderable(
                "the answer does not survive tokenisation",
                repr(kept[:60]),
                "a tokenizer whose decode(encode(answer)) is the answer",
                "the row is left out; normalise the text to keep it",
            )
        return Rendered(tuple(ids), prompt_length, end)

    def _refuse_markers(self, text: str, which: str) -> None:
        if self.compat == "reference":
            return
        for marker in self._special_texts:
            if marker in text:
                raise Unrenderable(f"the {which} holds the special token {marker}", repr(text[:40]), "plain text", "the row is left out")

    def prove(self) -> None:
        """Check the renderer on probe rows before any work: one BOS, literal prefix, the answer in its span.

        Raises:
            BadInput: with the probe that failed.
        """
        for question, answer in PROBES:
            try:
                rendered = self.conversation(question, answer)
            except Unrenderable as error:
                if "survive tokenisation" in error.what:  # a small vocabulary may lack a character: a row's matter, not the template's
                    continue
                raise
            bos = self.tokenizer.bos_token_id
            if self.compat == "ours" and bos is not None and self._special_count(rendered.ids, bos) > 1:
                raise BadInput("the rendering starts with more than one BOS", rendered.ids[:4], "one", "remove it from the template")

    def _special_count(self, ids: Sequence[int], token: int) -> int:
        """How often a token opens the sequence (a BOS that is also the end-of-turn token may come again later)."""
        count = 0
        for i in ids:
            if i != token:
                break
            count += 1
        return count

    @cached_property
    def fingerprint(self) -> str:
        """Identify the rendering: template, special tokens and the ids of the probe rows."""
        probes = []
        for question, answer in PROBES:
            try:
                rendered = self.conversation(question, answer)
                probes.append([list(rendered.ids), rendered.prompt_length, rendered.answer_end])
            except Unrenderable as error:
                probes.append([str(error.what)])
        content = [RENDERING_VERSION, self.compat, self.template, sorted(self.special_ids), probes]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()


def _choose_template(tokenizer: Any, chat_template: str | None) -> str:
    """The template to use: the tokenizer's own, the word `plain`, or a Jinja file."""
    given = template_text(chat_template)
    if given is not None:
        return given
    if not getattr(tokenizer, "chat_template", None):
        raise BadInput(
            "the tokenizer has no chat template",
            tokenizer.name_or_path,
            "a chat template in the tokenizer's directory",
            "set chat_template: plain, or chat_template: FILE.jinja, for this model",
        )
    return str(tokenizer.chat_template)


def template_text(chat_template: str | None) -> str | None:
    """The text of a template that an experiment names; None when it names none.

    Raises:
        BadInput: no such file.
    """
    if chat_template is None or chat_template == "plain":
        return None if chat_template is None else PLAIN_TEMPLATE
    path = Path(chat_template)
    if not path.is_file():
        raise BadInput("no chat template there", chat_template, "a .jinja file, or the word plain", "check chat_template")
    return path.read_text(encoding="utf-8")
