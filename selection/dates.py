"""Days of the year, however they are written: 14 March, March 14th, Mar. 14, 2023."""

import re

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october",
    "november", "december",
)  # fmt: skip
MONTH = rf"(?P<month>{'|'.join(MONTHS)}|{'|'.join(m[:3] for m in MONTHS)}|sept)\.?"
DAY = r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
YEAR = r"(?:\s*,?\s*(?P<year>\d{4}))?"
AMERICAN = re.compile(r"(\d{1,2})[-/.](\d{1,2})[-/.](\d{4})")
NUMERIC = re.compile(r"(?P<year>\d{4})[-/.](?P<month>\d{1,2})[-/.](?P<day>\d{1,2})")
FORMS = (
    re.compile(rf"(?:the )?{DAY}(?: of)?\s+{MONTH}{YEAR}", re.IGNORECASE),
    re.compile(rf"{MONTH}\s+{DAY}{YEAR}", re.IGNORECASE),
)


def day_of(text: str) -> tuple[int, int, int | None] | None:
    """Month, day and year. None if the text is something else.

    >>> day_of("14 March"), day_of("Mar. 14th, 2023"), day_of("March 32"), day_of("14 apples")
    ((3, 14, None), (3, 14, 2023), None, None)
    """
    bare = text.strip().rstrip(".")
    if american := AMERICAN.fullmatch(bare):
        one, other, year = (int(part) for part in american.groups())
        if one <= 12 < other <= 31:
            return one, other, year
        return (other, one, year) if other <= 12 < one <= 31 else None
    if numeric := NUMERIC.fullmatch(bare):
        year, month, day = (int(numeric[name]) for name in ("year", "month", "day"))
        return (month, day, year) if 1 <= month <= 12 and 1 <= day <= 31 else None
    found = next((m for form in FORMS if (m := form.fullmatch(bare))), None)
    if found is None or not 1 <= int(found["day"]) <= 31:
        return None
    month = next(k for k, name in enumerate(MONTHS, 1) if name.startswith(found["month"].casefold()[:3]))
    return month, int(found["day"]), int(found["year"]) if found["year"] else None


def same_day(a: tuple[int, int, int | None], b: tuple[int, int, int | None]) -> bool:
    """Whether two days are the same. A year that only one of them has is left out.

    >>> same_day((3, 14, None), (3, 14, 2023)), same_day((3, 14, 2022), (3, 14, 2023))
    (True, False)
    """
    return a[:2] == b[:2] and (a[2] == b[2] or a[2] is None or b[2] is None)
