"""One renderer from question and answer to token ids and spans, for scoring, training and evaluation alike.
Everything goes through the student's own chat template. The prompt rendered with the generation prompt must
be a literal prefix of the whole conversation, or the student would be trained on text it never sees when it
generates.

Spans (0-based, end exclusive), for ids of length T:
    prompt   [0, prompt_length)            what an answer is conditioned on
    answer   [prompt_length, answer_end)   what training puts loss on, the end-of-turn token included
The template's text after the end-of-turn token (ChatML's newline) is in neither. An answer may hold its
reasoning: `<think>reasoning</think>content`. It is passed to the template as the message's
`reasoning_content`, and must be found again in the answer's span. A think block that a template invents
before an answer without reasoning belongs to the prompt and has no loss. If the generation prompt itself ends
in an open think tag (R1), the answer begins inside of it.

`compat="reference"` reproduces the SCAS authors' program: text tokenised with special tokens on (two BOS on
some tokenizers), a default system text, and an answer span to the end of the sequence.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import Any, Literal

import numpy as np

from cluster.errors import BadInput, Unrenderable
from cluster.models.chat_template import choose_template, tool_template
from cluster.models.chat_text import ChatText, refuse_another_start
from cluster.models.kept import pieces_in, refuse_lost, said_until, texts_of
from cluster.models.markers import Markers
from cluster.models.messages import Message, Prompt, ToolCall, plain, read_calls, write_calls
from cluster.models.reasoning import OPENED, split_reasoning, with_reasoning

Compat = Literal["ours", "reference"]
RENDERING_VERSION = 3
REFERENCE_SYSTEM = "You are a helpful assistant."
PROBES = (
    ("2+2?", "4"),
    ("Say <hi> & go.", "first line\nsecond  line"),
    ("naïve – 数?", "$x^{2}$ \\boxed{7}"),
)
ANCHORS = ("\n", ">", ".")
BEHIND = ("a", " a", "  a", "\na", "\n\na", "7", " 7", ".", "é", "数")  # what a special token stands before
THINKING_PROBE = ("2+2?", "<think>2 and 2</think>4")


@dataclass(frozen=True)
class Rendered:
    """Token ids of one conversation, with `prompt_length` and `answer_end` in tokens.

    Attributes:
        spans: of a trajectory, the tokens that the student writes: one span for each turn of the assistant,
            the first at `prompt_length`, the last to `answer_end`. What lies between them is context. Empty
            for an answer of one turn, unless only parts of it count (`selection/parts.py`).
    """

    ids: tuple[int, ...]
    prompt_length: int
    answer_end: int
    spans: tuple[tuple[int, int], ...] = ()

    @property
    def length(self) -> int:
        return len(self.ids)

    @property
    def is_context(self) -> np.ndarray:
        """For each token from `prompt_length` to `answer_end`, whether the student does not write it."""
        found = np.full(self.answer_end - self.prompt_length, bool(self.spans))
        for start, end in self.spans:
            found[start - self.prompt_length : end - self.prompt_length] = False
        return found


def _rewritten(before: str, now: str) -> Unrenderable:
    """A template writes an earlier turn otherwise when another turn follows."""
    at = next((k for k, (a, b) in enumerate(zip(before, now, strict=False)) if a != b), len(now))
    return Unrenderable(
        "the template rewrites an earlier turn when another one follows",
        f"{before[at : at + 30]!r}, then {now[at : at + 30]!r}",
        "the same text, as it was generated",
        "take each turn alone (--turns each), or a template that keeps earlier turns",
    )


class TooLong(Unrenderable):
    """A trajectory has more tokens than are allowed."""


class Renderer:
    """Turns a question and an answer into ids and spans through one tokenizer's chat template.

    Args:
        chat_template: None for the tokenizer's own, the name of one of its templates, the word `plain`, or a
            Jinja file.
        template_kwargs: further variables of the template, such as `enable_thinking`.
    """

    def __init__(
        self,
        tokenizer: Any,
        chat_template: str | None = None,
        compat: Compat = "ours",
        template_kwargs: Mapping[str, Any] | None = None,
    ) -> None:
        self.tokenizer, self.compat, self.template_kwargs = tokenizer, compat, dict(template_kwargs or {})
        self.template = choose_template(tokenizer, chat_template)
        self.with_tools = tool_template(tokenizer, chat_template)
        self._chat = ChatText(tokenizer, self.template, self.template_kwargs, self.with_tools)
        self._markers = Markers(tokenizer, self._written)

    @property
    def special_ids(self) -> frozenset[int]:
        """The tokenizer's special tokens. A pad token that is an ordinary word is none of them."""
        return self._markers.special_ids

    @cached_property
    def marker_ids(self) -> frozenset[int]:
        """Added tokens that the template writes around turns and that the tokenizer does not call special."""
        return frozenset() if self.compat == "reference" else self._markers.template_ids

    def _written(self) -> str:
        """A short conversation as the template writes it, and the opening of an answer."""
        prompt = plain(PROBES[0][0])
        return self._chat.text(prompt, Message("assistant", PROBES[0][1])) + self._chat.opening(prompt)

    def _prompt(self, question: str | Prompt, system: str | None) -> Prompt:
        asked = plain(question, system) if isinstance(question, str) else question
        if asked.system is None and self.compat == "reference":
            return asked.told(REFERENCE_SYSTEM)
        return asked

    def _encode(self, text: str, *, start: bool) -> list[int]:
        """Encode text. `start` adds the BOS that the tokenizer would add, unless the template has already
        written one.
        """
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
        """The tokens that end a turn: the tokenizer's EOS and the end token that the template writes after an
        answer.
        """
        rendered = self.conversation(*PROBES[0])
        ends = {rendered.ids[rendered.answer_end - 1]} & (self.special_ids | self.marker_ids)
        return frozenset(ends | {i for i in [self.tokenizer.eos_token_id] if i is not None})

    @cached_property
    def opens_thinking(self) -> bool:
        """Whether the generation prompt ends in an open think tag. An answer then begins inside of it."""
        return OPENED.search(self._chat.opening(plain(PROBES[0][0]))) is not None

    @cached_property
    def header_ids(self) -> tuple[int, ...]:
        """The tokens before any answer, whatever the question: the start token if there is one, and what the
        template writes before an answer. Without either it is the EOS, which ends a previous text.
        """
        prompt = plain(PROBES[0][0])
        asked, opened = self._chat.text(prompt), self._chat.opening(prompt)
        header = opened[len(asked) :] if opened.startswith(asked) else ""
        start = [self.tokenizer.bos_token_id] if self._adds_bos else []
        ids = [*start, *self._encode(header, start=False)] if header else start
        eos = self.tokenizer.eos_token_id
        return tuple(ids or ([] if eos is None else [eos]))

    def answer_text(self, ids: Sequence[int]) -> str:
        """A generated answer's ids as the text that `conversation` takes. If the prompt had opened a think
        tag, it is added.
        """
        text = self._markers.said(ids)
        return f"<think>{text}" if self.opens_thinking else text

    def prompt(self, question: str | Prompt, system: str | None = None) -> tuple[int, ...]:
        """Token ids from which an answer is generated.

        Args:
            question: its text, or all its turns.
            system: for a question that is a text.

        Raises:
            Unrenderable: the template loses a turn, or a text would forge one.
        """
        return tuple(self._encode(self._prompt_text(self._prompt(question, system)), start=True))

    def _prompt_text(self, prompt: Prompt) -> str:
        for text, which in texts_of(prompt):
            self._refuse_markers(text, which)
        text = self._chat.opening(prompt)
        refuse_lost(prompt, text)
        return text

    def conversation(
        self, question: str | Prompt, answer: str, system: str | None = None, calls: str = ""
    ) -> Rendered:
        """Render a question with its answer. The answer's reasoning is in `<think>` tags.

        Args:
            calls: JSON text of the answer's tool calls; empty for none.

        Raises:
            Unrenderable: the prompt is not a literal prefix, the answer or its reasoning is not found again
                in its span, the template loses a turn, or a text holds a special token of the tokenizer,
                which would forge a turn.
        """
        prompt = self._prompt(question, system)
        if self.compat == "reference":
            return self._reference(prompt, answer, read_calls(calls))
        return self._answered([], "", prompt, answer, calls)[0]

    def end_of_text(self, rendered: Rendered) -> int:
        """Where an answer ends without the tokens that end its turn."""
        end = rendered.answer_end
        while (
            end - 1 > rendered.prompt_length and rendered.ids[end - 1] in self.special_ids | self.marker_ids
        ):
            end -= 1
        return end

    def trajectory(
        self, question: str | Prompt, turns: Sequence[Message], limit: int | None = None, cuts: bool = False
    ) -> Rendered:
        """Render a question with all turns after it, of which the student writes the assistant's.

        Each turn of the assistant stands after the very text that the template writes when that turn is
        generated. So a template that rewrites earlier turns (drops their reasoning, numbers calls anew)
        cannot render a trajectory.

        Args:
            turns: the first and the last one are the assistant's.
            limit: the most tokens. Rendering ends where there are more: it takes longer with each turn.
            cuts: whether a trajectory that is too long is cut after the last turn of the assistant that fits.

        Raises:
            TooLong: there are more tokens than the limit, and not even the first turn fits, or nothing is
                cut.
            Unrenderable: as in `conversation`; the template rewrites an earlier turn, or writes no end of a
                turn.
        """
        asked = self._prompt(question, None)
        if self.compat == "reference":
            raise Unrenderable("a trajectory in the authors' program", "", "an answer of one turn", "")
        ids: list[int] = []
        text, spans = "", list[tuple[int, int]]()
        for k, turn in enumerate(turns):
            if turn.role != "assistant":
                continue
            prompt = Prompt((*asked.turns, *turns[:k]), asked.tools)
            said = with_reasoning(turn.reasoning, turn.content)
            calls = write_calls(turn.tool_calls)
            rendered, text, has_end = self._answered(ids, text, prompt, said, calls, self.seams)
            if not has_end and k < len(turns) - 1:
                raise Unrenderable(
                    "the template writes no end of a turn of the assistant",
                    repr(text[-30:]),
                    "an end-of-turn token before the next turn",
                    "take each turn alone (--turns each)",
                )
            if limit is not None and len(rendered.ids) > limit:
                if cuts and spans:
                    break
                raise TooLong(f"more than {limit} tokens", f"{k + 1} of {len(turns)} turns", "fewer", "")
            ids = list(rendered.ids)
            spans.append((rendered.prompt_length, rendered.answer_end))
        return Rendered(tuple(ids), spans[0][0], spans[-1][1], tuple(spans) if len(spans) > 1 else ())

    @cached_property
    def seams(self) -> Mapping[int, str]:
        """The template's own special tokens behind which the tokenizer begins anew, with their texts: what
        stands before one does not change the ids of what stands behind it. So a long text need not be encoded
        from its beginning whenever something follows.
        """
        found: dict[int, str] = {}
        try:
            written = self._encode(self._written(), start=False)
        except Unrenderable:  # the template needs other turns
            return found
        for i in sorted({*written} & (self.special_ids | self.marker_ids)):
            seam = str(self.tokenizer.convert_ids_to_tokens(i))
            before = self._encode(f"q{seam}", start=False)
            if before[-1:] == [i] and all(
                self._encode(f"q{seam}{text}", start=False) == before + self._encode(text, start=False)
                for text in BEHIND
            ):
                found[i] = seam
        return found

    def _answered(
        self,
        ids: list[int],
        text: str,
        prompt: Prompt,
        answer: str,
        calls: str,
        seams: Mapping[int, str] = MappingProxyType({}),
    ) -> tuple[Rendered, str, bool]:
        """Render a prompt and its answer behind what has been rendered before: ids and their text. Returns
        them with the text of all, and whether the template itself has written the end of the turn.

        Args:
            seams: as `seams`, or none to encode from the beginning.
        """
        called = read_calls(calls)
        reasoning, content = split_reasoning(answer)
        for piece, which in ((reasoning or "", "reasoning"), (content, "answer"), (calls, "tool call")):
            self._refuse_markers(piece, which)
        if not content.strip() and not called:
            raise Unrenderable(
                "the answer has no text after its reasoning", answer[:60], "an answer", "the row is left out"
            )
        prompt_text = self._prompt_text(prompt)
        if not prompt_text.startswith(text):
            raise _rewritten(text, prompt_text)
        invented, rest = self._chat.continuation(prompt, prompt_text, reasoning, content, called)
        further = prompt_text[len(text) :]
        ids = self._joined(ids, text, further, seams) if ids else self._encode(prompt_text, start=True)
        ids = self._joined(ids, prompt_text, invented, seams)
        prompt_length = len(ids)
        ids = self._joined(ids, prompt_text + invented, rest, seams)
        pieces = [reasoning or "", content.strip()]
        rendered = self._with_end_of_turn(ids, prompt_length, rest, pieces, called)
        return rendered, prompt_text + invented + rest, len(rendered.ids) == len(ids)

    def _reference(self, prompt: Prompt, answer: str, calls: tuple[ToolCall, ...]) -> Rendered:
        """Render like the SCAS authors' program: the answer runs to the end of the text."""
        prompt_text = self._chat.text(prompt, generation=True)
        whole_text = self._chat.text(prompt, Message("assistant", answer, tool_calls=calls))
        refuse_another_start(prompt_text, whole_text)
        whole = self._encode(whole_text, start=True)
        return Rendered(tuple(whole), len(self._encode(prompt_text, start=True)), len(whole))

    def _joined(self, ids: list[int], text: str, more: str, seams: Mapping[int, str]) -> list[int]:
        """The ids of a text and of the text after it. The first ids stay unchanged, because the student
        generates from them. So no token spans both.
        """
        if not more:
            return ids
        at = next((k for k in reversed(range(len(ids))) if ids[k] in seams), -1)
        _, seam, behind = text.rpartition(seams[ids[at]]) if at >= 0 else ("", "", "")
        if seam:
            tail, last = self._encode(behind + more, start=False), ids[at + 1 :]
            if tail[: len(last)] == last:
                return ids[: at + 1] + tail
            if self._encode(behind, start=False) == last:
                return ids + self._encode_behind(more)
        whole = self._encode(text + more, start=True)
        return whole if whole[: len(ids)] == ids else ids + self._encode_behind(more)

    def _encode_behind(self, text: str) -> list[int]:
        """The ids of a text that stands behind another one. Some tokenizers put a space before any text,
        which they would put in here too.
        """
        ids = self._encode(text, start=False)
        first = self.tokenizer.convert_ids_to_tokens(ids[:1])
        if self.compat == "reference" or not first or not str(first[0]).startswith("▁") or text[:1].isspace():
            return ids
        for anchor in ANCHORS:
            before, both = self._encode(anchor, start=False), self._encode(anchor + text, start=False)
            if both[: len(before)] == before:
                return both[len(before) :]
        return ids

    def _with_end_of_turn(
        self,
        ids: list[int],
        prompt_length: int,
        rest: str,
        kept: Sequence[str],
        calls: tuple[ToolCall, ...],
    ) -> Rendered:
        """Find the end of the turn. If the template writes none, append EOS.

        Args:
            kept: reasoning and content, which must be found again in the span.
        """
        pieces = (pieces_in(rest, kept[0], kept[1], calls) if calls else kept) or kept
        said = said_until(rest, pieces, self._markers.pattern)
        before = len(self._markers.pattern.findall(rest[:said]))
        ends = self.special_ids | self.marker_ids
        specials = [i for i in range(prompt_length, len(ids)) if ids[i] in ends]
        if len(specials) > before:
            # a call may end before the turn does; a turn may end in several adjacent tokens
            last = len(specials) - 1 if calls else before
            while last + 1 < len(specials) and specials[last + 1] == specials[last] + 1:
                last += 1
            end = specials[last] + 1
        else:
            if self.tokenizer.eos_token_id is None:
                raise Unrenderable(
                    "neither the template nor the tokenizer has an end-of-turn token",
                    "",
                    "an eos_token",
                    "set one",
                )
            ids, end = [*ids, self.tokenizer.eos_token_id], len(ids) + 1
        decoded = self.tokenizer.decode(np.array(ids[prompt_length:end]))  # of a list it looks at each id
        for text in kept:
            if text not in decoded:
                raise Unrenderable(
                    "the answer does not survive tokenisation",
                    repr(text[:60]),
                    "a tokenizer whose decode(encode(answer)) is the answer",
                    "the row is left out; normalise the text to keep it",
                )
        return Rendered(tuple(ids), prompt_length, end)

    def _refuse_markers(self, text: str, which: str) -> None:
        if self.compat == "ours":
            self._markers.refuse(text, which)

    def prove(self) -> None:
        """Check the renderer on probe rows before any work: one BOS, literal prefix, the answer in its span.

        A template that cannot hold reasoning is not refused. Rows with reasoning are refused one by one.

        Raises:
            BadInput: a probe failed, or rendering does not end. Names the probe.
        """
        self._chat.refuse_endless()
        for question, answer in PROBES:
            try:
                rendered = self.conversation(question, answer)
            except Unrenderable as error:
                # a small vocabulary may lack a character: that concerns a row, not the template
                if "survive tokenisation" in error.what:
                    continue
                raise
            bos = self.tokenizer.bos_token_id
            if self.compat == "ours" and bos is not None and self._special_count(rendered.ids, bos) > 1:
                raise BadInput(
                    "the rendering starts with more than one BOS",
                    rendered.ids[:4],
                    "one",
                    "remove it from the template",
                )

    def _special_count(self, ids: Sequence[int], token: int) -> int:
        """How often a token is repeated at the start of the sequence. (A BOS that is also the end-of-turn
        token may occur again later.)
        """
        count = 0
        for i in ids:
            if i != token:
                break
            count += 1
        return count

    @cached_property
    def fingerprint(self) -> str:
        """The identity of the rendering: template, special tokens and the ids of the probe rows."""
        probes = []
        for question, answer in (*PROBES, THINKING_PROBE):
            try:
                rendered = self.conversation(question, answer)
                probes.append([list(rendered.ids), rendered.prompt_length, rendered.answer_end])
            except Unrenderable as error:
                probes.append([str(error.what)])
        content: list[Any] = [RENDERING_VERSION, self.compat, self.template, self.template_kwargs]
        content += [sorted(self.special_ids), probes, *([self.with_tools] if self.with_tools else [])]
        return hashlib.sha256(json.dumps(content, sort_keys=True, default=str).encode()).hexdigest()
