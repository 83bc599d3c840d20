"""The marks of a final answer in other languages than English, and the words that change what a number means.

Only the words are here. Where a mark counts is in `selection.extraction`.
"""

import re

from selection.numerals import SCALES

# the word for answer, and the verb between it and the answer
ANSWERS: tuple[tuple[str, str], ...] = (
    ("Antwort", "ist|lautet"),
    ("respuesta", "es"),
    ("réponse", "est"),
    ("resposta", "é"),
    ("risposta", "è"),
    ("antwoord", "is"),
    ("odpowiedź", "to"),
    ("Ответ", "это"),
    ("Jibu", "ni"),
    ("উত্তর", "হলো|হল"),
    ("उत्तर", "है"),
    ("คำตอบ", "คือ"),
    ("సమాధానం", "ఏమిటంటే"),
    ("đáp án", "là"),
    ("câu trả lời", "là"),
    ("الجواب", "هو"),
    ("الإجابة", "هي"),
    ("cevap", "="),
    ("Odpověď", "je"),
    ("Svar(?:et)?", "är|er"),
    ("Vastaus", "on"),
    ("Απάντηση", "είναι"),
    ("Відповідь", "це"),
    ("Válasz", "az?"),
    ("Răspuns(?:ul)?", "este"),
    ("Jawaban(?:nya)?", "adalah"),
    ("Sagot", "ay"),
    ("đáp số", "là"),
)
WITHOUT_SPACES = frozenset({"คำตอบ", "উত্তর", "उत्तर", "సమాధానం"})  # between words, or letters that are no \\w
WITHOUT_VERB = frozenset({"উত্তর", "उत्तर", "సమాధానం", "cevap"})  # the value follows at once
# not, about, at least, more than, thousand, dozen, times: words after which a number is another one
WORDS = (
    # German, Spanish, French
    "nicht|keine?|etwa|ungefähr|circa|ca|mindestens|höchstens|weniger|mehr|fast|tausend|million(?:en)?|"
    "milliarden?|dutzend|hundert|zehntel|hundertstel|mal|vielleicht|kleiner|größer|doppelte|dreifache\w*|vierfache\w*|hälfte|wurzel|"
    "quadrat|bis|über|unter|nein|oder",
    r"no|menos|más|aproximadamente|alrededor|casi|máximo|mínimo|mil|mill\w+|décim\w+|centésim\w+|docenas?|"
    "veces|cientos?|quizás?|tal vez|hasta|mitad|doble|triple|raíz|cuadrado|mayor|menor|espera",
    r"pas|environ|moins|plus|presque|mille|millions?|milliards?|dixièmes?|centièmes?|douzaines?|fois|"
    "peut-être|moitié|double|triple|racine|carré|jusqu|sauf|attendez|ou",
    # Portuguese, Italian, Dutch
    r"não|mais|cerca|quase|vezes|milh\w+|dúzias?|centenas?|metade|dobro|triplo|talvez|até|raiz|ou",
    r"non|meno|più|quasi|almeno|massimo|mila|milion\w*|miliard\w*|dozzin\w*|decim\w+|centesim\w+|volte|metà|doppio|triplo|"
    "forse|radice|fino",
    r"niet|geen|minder|meer|ongeveer|bijna|minstens|hoogstens|duizend|miljoen|miljard|dozijn|keer|helft|dubbele|"
    "misschien|of",
    # Polish, Russian, Turkish
    r"nie|mniej|więcej|około|prawie|najmniej|najwyżej|tysi\w+|tys|tuzin\w*|setn\w+|dziesiąt\w+|razy",
    r"не|менее|более|около|больше|меньше|примерно|приблизительно|почти|минимум|максимум|от|до|тыс\w*|млн|"
    r"миллион\w*|млрд|миллиард\w*|сот\w+|десят\w+|дюжин\w*|раза?|возможно|может|половин\w*|удвоенн\w*|"
    r"квадрат|корень|или",
    "değil|az|çok|yaklaşık|fazla|neredeyse|bin|milyon|milyar|düzine|yüzde|kat|belki|yarısı",
    # Vietnamese, Swahili
    "không|nhất|khoảng|hơn|gần|nghìn|ngàn|triệu|tỷ|tá|lần|một nửa|có thể",
    "si|karibu|zaidi|chini|angalau|elfu|milioni|mara|dazeni|nusu|labda",
)
# languages whose words have no spaces or no letters that `\w` knows
SIGNS = "নয়|প্রায়|হাজার|লাখ|नहीं|लगभग|हज़ार|हजार|लाख|करोड़|ไม่|ประมาณ|อย่างน้อย|กว่า|พัน|ล้าน|หมื่น|แสน|కాదు|సుమారు|వేల|లక్ష"
CHANGED = re.compile(rf"(?<!\w)(?:{'|'.join(WORDS)})(?!\w)|{SIGNS}", re.IGNORECASE)


def changed(text: str) -> bool:
    """Whether a word of another language than English changes the numbers of a text. The words for large
    numbers that are read do not count.

    >>> changed("menos de 18"), changed("18 milioni"), changed("18 Dollar")
    (True, False, False)
    """
    return any(
        found[0].casefold() == "mil" or found[0].casefold() not in SCALES for found in CHANGED.finditer(text)
    )
