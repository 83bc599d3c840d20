"""Finds the final answer in a worked answer: after a mark, in a box, in a pattern's group, or alone.

The last mark or box in the text counts. There is no fall-back to the last number or to a substring, which
would accept 12 for 2.
"""

import json
import re
from collections.abc import Iterator
from itertools import islice

from selection.boxes import boxed_answer, boxes
from selection.languages import changed
from selection.marks import BY_NEED, FOREIGN
from selection.retraction import is_called_wrong, kept

# what follows "the answer is" without being one
NO_ANSWER = re.compile(
    r"(?:correct|right|reasonable|consistent|verified|valid|sensible|plausible|confirmed|clear|obvious|"
    r"as follows|found|given by|obtained|based on|indeed correct|an integer|in the form|step|check|verif|"
    r"explanation|solution|conclusion|summary|note\b|part\b|answer|final answer|the final answer)",
    re.IGNORECASE,
)
DISPLAYED = re.compile(
    r"\s*(?:\\\[(.+?)\\\]|\$\$(.+?)\$\$|(\\begin\{(?:align|equation"
    r"|gather)\*?\}.+?\\end\{\w+\*?\}))[ \t]*([^\n]*)",
    re.DOTALL,
)
SENTENCE_END = re.compile(
    r"(?<=\d [A-Za-z])[.!]\s+(?=[A-Z(])|"
    r"(?<![\s.][A-Za-z])(?<!^[A-Za-z])(?<!Rs)(?<!sq)(?<!cu)(?<!approx)(?<!Mr)(?<!Dr)(?<!St)"
    r"[.!]\s+(?=[A-Z(\\$✓✅]|$)"
)
INTEGER_AT_END = re.compile(r"(?:####|A:|Answer:|The answer is:?)\s*(-?[0-9]+)\.?$")
# what makes the answer behind a mark one of several, or none: it stays before the answer
UNSETTLED = re.compile(
    r"(?:^|(?<=[\s.,;:(*_]))(?:(or|either|alternatively)[\s,:*_]*|"
    r"(perhaps|maybe|possibly|probably|if|whether|unless|suppose|assume|assuming|guess|guessing)[ ,:*_]*)"
    r"(?:(?!(?:so|thus|then|hence|therefore)\b)[^\W\d_]+[ ,:*_]+){0,3}\Z",
    re.IGNORECASE,
)
DENIED = re.compile(
    r"(?:\b(?:not|never|cannot|wrong|incorrect|doubt|unlikely|unsure|no way|false|impossible|nobody|"
    r"mistakenly|incorrectly|wrongly|tempted|"
    r"(?:might|may|could) (?:think|say|guess|believe))\b|"
    r"n't\b|\bat first (?:glance|sight),?|\b(?:claims|claimed|says|thinks|argues|guesses"
    r"|guessed)\b(?: that)?)"
    r"(?: +(?!(?:and|so|but|thus|hence|therefore|then)\b)[^\W\d_]+){0,5} *\Z",
    re.IGNORECASE,
)
TRIES = ("xample", "instance", "e.g.", "uppose", "try")  # without a capital; searching TRIED takes longer
TRIED = re.compile(  # in the same sentence
    r"\b(?:for example|for instance|e\.g\.|suppose|let me try|let's try|trying|we try)\b[^.\n]{0,40}\Z",
    re.IGNORECASE,
)
BOX_DENIED = re.compile(
    r"(?:\b(?:is|was|are|were|be)\s+(?:not|never)|\b(?:isn't|wasn't|aren't)"
    r"|\b(?:cannot|can't|can never|can not|couldn't|could not|must not|mustn't|won't)\s+(?:possibly\s+)?be"
    r"|\brul(?:e|es|ed|ing) out|\b(?:maybe|perhaps|possibly)(?:\s+(?:it|that|this|the answer)(?:\s+is)?)?"
    r"|\b(?:don't|do not|doesn't|does not)\s+(?:think|believe)\b[^.,:;\n]{0,40}"
    r"|\b(?:not sure|unsure|(?<!no )(?<!without )(?<!without a )doubt)\b[^.,:;\n]{0,40}"
    r"|\b(?:if|whether|unless)\s+(?:it|that|this|the (?:final |correct )?answer)\s+(?:is|was|were|equals))"
    r"\s*(?:equal to\s*)?\Z",
    re.IGNORECASE,
)
BOX_TOKENS = re.compile(r"<[|｜]begin[_▁]of[_▁]box[|｜]>(.*?)<[|｜]end[_▁]of[_▁]box[|｜]>", re.DOTALL)
# 18 is the answer, at the end
IS_ANSWER = re.compile(
    r"(?:\A|[.!:]\s+|\n\s*|\b(?:[Hh]ence|[Ss]o|[Tt]hus|[Tt]herefore),?\s+)"
    r"(?P<value>[*_]*(?:\$[^$\n]{1,40}\$|-?[$€£]?\d[\d.,/]*%?)[*_]*(?:\s+[a-z]+)?)"
    r"\s+is (?:therefore |thus |indeed )?(?:the |our |my )(?:final |correct |right )?answer\s*[.!]?\s*\Z"
)
END_TOKENS = re.compile(  # of chat models
    r"(?:\s*(?:<\|[^|<>\s]{1,30}\|>|<｜[^｜<>\s]{1,30}｜>|</s>|<eos>|<end_of_turn>))+\s*\Z"
)
# where a model that was not stopped goes on with a turn of the user, or with another question of its own
TURN_OF_USER = re.compile(
    r"(?:<\|im_end\|>|<\|eot_id\|>|<\|endoftext\|>|<\|end\|>|</s>|<end_of_turn>"
    r"|<｜end▁of▁sentence｜>)(?=\s*\S)|"
    r"<\|im_start\|>\s*user\b|<\|start_header_id\|>\s*user\b|\[INST\]|<start_of_turn>\s*user\b"
)
NEXT_QUESTION = re.compile(
    r"^[ \t]*(?:(?:Question|Q|Problem|Human|User|Instruction)[ \t]*[:：]|"
    r"#{2,4}[ \t]*(?:Instruction|Question|Problem|User)\b)",
    re.MULTILINE,
)
# "answers" is a mark only before a value, and not of other answers
TELLS = re.compile(r"[\d\\$]|^[(*]*[A-J]\b")
OF_A_PART = re.compile(r"\bparts? \(?[a-h1-9i]+\)?", re.IGNORECASE)
OTHERS = re.compile(
    r"\b(?:other|wrong|incorrect|possible|previous|remaining|negative|of|any|both)\s*[*_]*\Z", re.IGNORECASE
)
JSON_FIELD = re.compile(r"""["'](?:final_?)?answer["']\s*:\s*(["']?)$""", re.IGNORECASE)
FENCED = re.compile(r"```\w*\n([^`]*)\n?```")
ITEM = re.compile(r"[ \t]*(?:[-*+•‣◦]|\d{1,2}[.)])[ \t]+(?=\S)")
NUMBERED = re.compile(r"[ \t]*(\d{1,2})[.)]")
VALUED = re.compile(rf"{ITEM.pattern}(?=[-*$\\(]*(?:\d|[a-z]\s*=|\\))")  # an item that begins with a value
BARE_NUMBER = re.compile(r"[-+]?\d[\d.,/]*")
# an answer in other units than it says, and one that is not the last word
SCALED = re.compile(r"\bin\s+(?:thousand|million|billion|hundred|lakh|crore)s?\b", re.IGNORECASE)
ANOTHER_ANSWER = re.compile(
    r"\b(?:previous|earlier|first|initial|naive|sample|example|tentative|preliminary|least likely|worst|"
    r"intermediate|partial|trial|"
    r"second[- ]best|wrong|incorrect)\s*[*_]*\Z",
    re.IGNORECASE,
)
MOST_QUESTIONS = 20  # the first ones behind which a text may go on
MOST_MARKS = 200  # the last marks of a kind that are looked at
BARE_CHARACTERS, BARE_WORDS = 60, 4
OPTIONS = re.compile(r"^[ \t>*_-]*B[*_]*\s?[:.)]", re.MULTILINE)


def extract_final(text: str, pattern: str | None = None) -> str | None:
    r"""Find the final answer in a worked answer.

    >>> extract_final(r"so \boxed{\frac{1}{2}}. Check with 10 items")
    '\\frac{1}{2}'
    >>> extract_final("after 15 steps we have 7") is None
    True
    """
    if "of_box" in text or "of▁box" in text:
        text = BOX_TOKENS.sub(r"\\boxed{\1}", text)
    if text.rstrip().endswith(">"):
        text = END_TOKENS.sub("", text)
    has_sign = "<|" in text or "<｜" in text or "</s>" in text or "_of_turn>" in text or "[INST]" in text
    if has_sign and (turn := TURN_OF_USER.search(text)):
        text = text[: turn.start()] if text[: turn.start()].strip() else text
    if pattern is None and (following := _next_question(text)) is not None:
        text = text[:following]
    if pattern is not None:
        found = re.findall(pattern, text, re.MULTILINE)
        last = found[-1] if found else None
        return (last[0] if isinstance(last, tuple) else last) if last is not None else None
    before, _, line = text.rstrip().rpartition("\n")
    if (ended := INTEGER_AT_END.match(line)) and not _unsettled(before, len(before)):
        return ended[1]  # no mark can come later
    in_boxes = boxes(text) if "box" in text else []
    mark = last_mark(text)
    if in_boxes and (mark is None or in_boxes[-1].end > mark[0] or _says_little(mark[1])):
        last = in_boxes[-1]
        is_denied = _denied(text[: last.start]) or is_called_wrong(text, last.end)
        return kept(f"{'not ' if is_denied else ''}{boxed_answer(text, in_boxes)}", text[last.end :])
    if mark is None:
        told = IS_ANSWER.search(text) if "answer" in text else None
        return told["value"].strip("*_ ") if told else None
    end = text.find(mark[1], mark[0])
    return kept(mark[1], text[end + len(mark[1]) :] if end >= 0 else "")


def _next_question(text: str) -> int | None:
    """Where a text goes on with another question behind its answer. None if it does not."""
    is_asked = "Question" in text or "Q:" in text or "Q：" in text or "Q " in text or "Q\t" in text
    if not (is_asked or "Problem" in text or "Human" in text or "User" in text or "Instruction" in text):
        return None
    for found in islice(NEXT_QUESTION.finditer(text), MOST_QUESTIONS):
        before = text[: found.start()]
        if before.strip() and (("box" in before and boxes(before)) or last_mark(before) is not None):
            return found.start()
    return None


def _denied(before: str) -> bool:
    """Whether the text before a box says that it is not the answer, or may not be."""
    near = before.rstrip(" $\\([{*").rstrip()[-100:]
    return BOX_DENIED.search(near) is not None and not re.search(r"\bonly\b[^.\n]*\Z", near)


def stands_alone(text: str) -> str | None:
    """The whole text, if it is short enough to be only an answer.

    >>> stands_alone("18"), stands_alone("(B) Paris"), stands_alone("So she has 18 apples left.")
    ('18', '(B) Paris', None)
    """
    fenced = FENCED.fullmatch(END_TOKENS.sub("", text).strip())
    said = fenced[1].strip() if fenced else END_TOKENS.sub("", text).strip()
    if not said or len(said) > BARE_CHARACTERS or "\n" in said or "=" in said:
        return None
    words = said.split()
    is_marked = re.match(r"[^\w\s]|\d|\w[.):]", said) is not None
    return said if len(words) <= (BARE_WORDS if is_marked else 2) else None


def last_mark(text: str) -> tuple[int, str] | None:
    """The place where the last mark's answer begins, and the answer."""
    return max(marked_answers(text), default=None)


def marked_answers(text: str) -> Iterator[tuple[int, str]]:
    """The last answer of each mark."""
    lower = text.casefold()
    for mark in (mark for needed, marks in BY_NEED if needed in lower for mark in marks):
        for match in list(mark.finditer(text))[: -MOST_MARKS - 1 : -1]:
            said = answer_at(text, match.end())
            if not said or (not said[0].isdigit() and NO_ANSWER.match(said)):
                continue
            before = text[max(0, match.start() - 20) : match.start()]
            if before.endswith("(") and said.endswith(")") and said.count(")") > said.count("("):
                said = said[:-1].rstrip()  # (Answer: 18)
            if "answers" in match[0].casefold() and (not TELLS.search(said[:40]) or OTHERS.search(before)):
                continue
            if not _is_option(text, match) and not _lists_options(text, match.end(), said):
                told = _as_told(said, mark)
                told = f"perhaps {told}" if SCALED.search(match[0]) else told
                is_another = mark not in FOREIGN and ANOTHER_ANSWER.search(before) is not None
                is_another |= bool(OF_A_PART.search(match[0]) and OF_A_PART.search(text, match.end()))
                yield match.end(), f"{'not ' if is_another else _unsettled(text, match.start())}{told}"
                break


def _as_told(said: str, mark: re.Pattern[str]) -> str:
    """The answer of a mark. In another language than English, a number beside a word that changes it is
    marked as doubtful: only English words are read.
    """
    is_changed = mark in FOREIGN and re.search(r"\d", said) and changed(said)
    return f"perhaps {said}" if is_changed else said


def _unsettled(text: str, place: int) -> str:
    """The word before a mark that takes its answer back. It is put before the answer, which is then not read
    as a plain answer.

    >>> _unsettled("It is 2 or the answer is 4", 11), _unsettled("I don't think the answer is 4", 14)
    ('or ', 'not ')
    """
    before = text[max(0, place - 60) : place]
    is_tried = any(word in before for word in TRIES)
    if is_tried and TRIED.search(before):
        return "perhaps "
    if found := UNSETTLED.search(before):
        return f"{(found[1] or found[2]).casefold()} "
    begins_line = not before or before.endswith("\n")  # then no sentence leads to the mark
    return "not " if not begins_line and DENIED.search(before) else ""


def _lists_options(text: str, place: int, said: str) -> bool:
    """Whether a mark's answer begins a list of all options."""
    if not re.match(r"[*_(]*A[*_]*[.):]", said):
        return False
    lines = [line for line in text[place:].split("\n")[1:] if line.strip()]
    return any(re.match(r"[ \t>*_(-]*B[*_]*[.):]", line) for line in lines[:2])


def _is_option(text: str, match: re.Match[str]) -> bool:
    """Whether `A:` begins a list of options."""
    if len(match[0]) > 8 or match[0].strip(" \t>*_`-").casefold().rstrip(":* `_") != "a":
        return False
    return OPTIONS.search(text, match.end()) is not None


def answer_at(text: str, place: int) -> str:
    """The text at a place: displayed mathematics, or a line up to the end of its first sentence."""
    end = text.find("\n", place)
    line = text[place : end if end >= 0 else len(text)].strip()
    before = text[max(0, place - 200) : place]
    gap = before[len(before.rstrip(" \t*_`\n")) :]
    is_below = "\n" in gap
    if line.isdigit() and not is_below:  # most answers
        return line
    displayed = DISPLAYED.match(text, place)
    if displayed:
        return f"{displayed[1] or displayed[2] or displayed[3]} {displayed[4]}".strip(" .\n")
    rest = text[place:].lstrip()
    star = "* " if gap.rpartition("\n")[2].strip() == "*" else ""  # which began an item
    if is_below and (items := _items_in(star + rest)):
        return items
    said = rest.partition("\n")[0]
    if said.rstrip("*_ ").endswith((r"\(", "$")) and said.strip("*_ $") == "":
        said = rest.replace("\n", " ")
    said = re.split(
        r"</(?:(?:final_?)?answer|final(?:_result)?|result)>", said, maxsplit=1, flags=re.IGNORECASE
    )[0]
    if field := JSON_FIELD.search(text[max(0, place - 40) : place]):
        value = _json_value(text[place - len(field[1]) :])
        if value is not None:
            return value
        said = re.split(r"""["']?\s*[,}]\s*(?=["']|$|\})""", said, maxsplit=1)[0]
        said = said.rstrip("}") if said.count("}") > said.count("{") else said
        said = said.replace("\\\\", "\\")  # of JSON
    if re.search(r"\|\s*$", before):
        said = said.split("|")[0]
    said = SENTENCE_END.split(said, maxsplit=1)[0].strip()
    return (
        re.sub(r"(?<!\.)\.$", "", said.strip("*_` ")).strip("*_` ")
        if said.count("*") != 2
        else said.rstrip(". ")
    )


def _json_value(text: str) -> str | None:
    """The value at the beginning of a text in JSON, or of its field `value`, as text. None if it is no plain
    one. In JSON that a model wrote, a LaTeX command may stand with one backslash.
    """
    try:
        value, _ = json.JSONDecoder().raw_decode(text)
    except ValueError:
        return None
    if isinstance(value, list) and len(value) == 1:
        (value,) = value
    if isinstance(value, dict):
        unit = value.get("unit", value.get("units"))
        value = f"{value['value']} {unit or ''}".strip() if "value" in value else None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return str(value).lower() if isinstance(value, bool) else None
    told = str(value)
    return None if re.search(r"[\x00-\x1f]", told) else told.strip()


def _items_in(text: str) -> str:
    """The items of a list at the beginning of a text, or numbers below one another, between commas. Empty if
    it begins with neither.

    >>> _items_in("- 42"), _items_in("* x = 2\\n* x = 3\\n\\nSo"), _items_in("So 42")
    ('42', 'x = 2, x = 3', '')
    """
    found, lines = list[str](), text.split("\n")
    if (number := NUMBERED.match(text)) and number[1] != "1":
        return ""
    link = ", "
    for place, line in enumerate(lines):
        item = ITEM.match(line)
        if found and re.fullmatch(r"[ \t]*(?:or|and|,)?[ \t]*", line):
            is_followed = any(VALUED.match(later) for later in lines[place + 1 : place + 2])
            if is_followed:
                link = " or " if "or" in line else link
                continue
        if item is None and not (BARE_NUMBER.fullmatch(line.strip()) and len(found) == place):
            break
        if found and VALUED.match(lines[0]) and item and not VALUED.match(line):
            break  # a note behind the values
        found.append((line[item.end() :] if item else line).strip(" *_`").rstrip("."))
    return link.join(found) if len(found) > 1 or (found and ITEM.match(lines[0])) else ""


def _says_little(said: str) -> bool:
    """Whether a mark's answer is only talk. A box before it counts then."""
    is_word = said.strip().casefold() in ("yes", "no", "true", "false")
    return not is_word and not re.search(r"[\d\\]", said) and not re.match(r"[(*]*[A-J]\b(?!')", said)
