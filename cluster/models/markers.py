"""The tokens that structure a conversation: which no text may hold, and which an answer itself may say."""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

from cluster.errors import Unrenderable
from cluster.models.reasoning import CHANNEL_TOKENS, SAID_TAG, without_channels

TAG = re.compile(r"</?[A-Za-z_]+>")  # what an answer itself may hold: <think>, </tool_call>


class Markers:
    """Special tokens of one tokenizer, and what its chat template writes around turns.

    Args:
        tokenizer: of transformers.
        written: gives a conversation as the template writes it, with the opening of a turn. It raises
            Unrenderable if the template cannot.
    """

    def __init__(self, tokenizer: Any, written: Callable[[], str]) -> None:
        self.tokenizer, self._written = tokenizer, written
        self._added: Mapping[int, Any] = getattr(tokenizer, "added_tokens_decoder", {})
        marked = {i for i, t in self._added.items() if t.special}
        ends = (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id)
        # a pad token that is none of these, nor marked, is a word that somebody chose for padding
        is_word = tokenizer.pad_token_id not in {*marked, *ends}
        named = {*tokenizer.all_special_ids} - ({tokenizer.pad_token_id} if is_word else set())
        self.special_ids = frozenset(named) | marked

    @cached_property
    def template_ids(self) -> frozenset[int]:
        """Added tokens that the template writes around turns and that the tokenizer does not call special, as
        in some distilled models. In a text they would forge a turn too.
        """
        texts = {i: str(t) for i, t in self._added.items() if i not in self.special_ids}
        texts = {i: text for i, text in texts.items() if text.strip() and not TAG.fullmatch(text)}
        if not texts:
            return frozenset()
        try:
            written = self._written()
        except Unrenderable:
            return frozenset()
        return frozenset(i for i, text in texts.items() if text in written)

    @cached_property
    def ids(self) -> frozenset[int]:
        """All tokens that no text may hold."""
        return self.special_ids | self.template_ids

    @cached_property
    def pattern(self) -> "re.Pattern[str]":
        """Finds any of them in a text."""
        texts = {str(text) for text in self.tokenizer.convert_ids_to_tokens(sorted(self.ids)) if text}
        texts |= {str(self._added[i]) for i in self.ids if i in self._added and str(self._added[i])}
        longest_first = sorted(texts, key=len, reverse=True)  # one search for all: some have hundreds
        return re.compile("|".join(map(re.escape, longest_first)) or r"(?!)")

    def refuse(self, text: str, which: str) -> None:
        """Refuse a text that holds one of them.

        Args:
            which: what the text is, for the error.

        Raises:
            Unrenderable: it does.
        """
        found = self.pattern.search(text)
        if found is not None:
            raise Unrenderable(
                f"the {which} holds the special token {found[0]}",
                repr(text[:40]),
                "plain text",
                "the row is left out",
            )

    def said(self, ids: Sequence[int]) -> str:
        """The text of an answer's ids, without tokens that only structure it. Tags of reasoning and calls
        stay, and channels become tags.
        """
        told = {i for i in ids if i in self._told}
        if not told and self.tokenizer.pad_token_id in self.special_ids:
            return str(self.tokenizer.decode(ids, skip_special_tokens=True))
        kept = [i for i in ids if i in told or i not in self.special_ids]
        text = str(self.tokenizer.decode(kept, skip_special_tokens=False))
        return without_channels(text) if told else text

    @cached_property
    def _told(self) -> frozenset[int]:
        """Special tokens that belong to what an answer says: tags of reasoning and calls, and channels."""
        ids = sorted(self.special_ids)
        tags = dict(zip(ids, map(str, self.tokenizer.convert_ids_to_tokens(ids)), strict=True))
        ends = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id}
        own = CHANNEL_TOKENS if "<|channel|>" in tags.values() else frozenset[str]()
        return frozenset(
            i for i, tag in tags.items() if i not in ends and (SAID_TAG.fullmatch(tag) or tag in own)
        )
