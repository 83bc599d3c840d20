"""Markers of chat templates in answers' texts. A program that keeps them has written more than the answer."""

import re

HINTS = ("<|", "</s>", "<s>", "[INST]", "[/INST]", "_of_turn>", "<｜")
MARKER = re.compile(
    r"<\|(?:im_start|im_end|eot_id|eom_id|end|endoftext|end_of_text|begin_of_text|start_header_id|end_header_id|"
    r"user|assistant|system|eos|return|start|message|END_OF_TURN_TOKEN)\|>|</?s>|\[/?INST\]|"
    r"<(?:start|end)_of_turn>|<｜[^｜\s]{2,40}｜>"
)


class ForeignMarkers:
    """Counts answers with markers. The student's own are refused when a row is rendered; those of other
    templates are text for it, which it would learn.
    """

    def __init__(self) -> None:
        self.count, self.first = 0, ""

    def see(self, text: str) -> None:
        """Look at one answer.

        >>> seen = ForeignMarkers()
        >>> seen.see("It is 7.<|eot_id|>"), seen.see("a <b> c"), seen.count
        (None, None, 1)
        """
        if "<" not in text and "INST]" not in text:  # true for most answers, of which there may be millions
            return
        if any(hint in text for hint in HINTS) and (found := MARKER.search(text)) is not None:
            self.count += 1
            self.first = self.first or found[0]

    @property
    def lines(self) -> list[str]:
        """What is said of them."""
        if not self.count:
            return []
        told = (
            f"{self.count:,} answers hold markers of a chat template, such as {self.first}: they are text of "
        )
        return [told + "the answer, which the student would learn; remove them if they are none"]
