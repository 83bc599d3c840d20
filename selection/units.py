r"""Reads what a number counts: units of measure with their size, currencies, and nouns.

A unit is a factor and the dimensions that it measures; a noun ("apples") is a dimension of its own. So 5 cm
is 50 mm and not 50 cm, and 18 apples are not surely 18 oranges. Text comes without typography.
"""

import re
from dataclasses import dataclass
from fractions import Fraction

from selection.vocabulary import EMPTY, TELLING

Dimensions = frozenset[tuple[str, int]]


@dataclass(frozen=True, slots=True)
class Unit:
    """A factor, and powers of dimensions; those of nouns begin with `#`."""

    factor: Fraction
    dimensions: Dimensions

    @property
    def counts_nouns(self) -> bool:
        """Whether it contains a noun that is in no table of units."""
        return any(name.startswith("#") for name, _ in self.dimensions)


def _sized(dimension: str, sizes: str) -> dict[str, tuple[Fraction, str]]:
    """`1000 kg kilo kilos; 1 g` as names of sizes of one dimension."""
    found = {}
    for line in sizes.split(";"):
        size, *names = line.split()
        found.update({name: (Fraction(size), dimension) for name in names})
    return found


SIZES = {
    "length": (
        "1 m meter meters metre metres; 1000 km kilometer kilometers kilometre kilometres kms; 1/100 "
        "cm centimeter centimeters centimetre centimetres cms; 1/1000 mm millimeter millimeters "
        "millimetre millimetres; 1/10 dm decimeter decimeters; 1/1000000 µm micrometer micrometers "
        "micron microns; 1/1000000000 nm nanometer nanometers; 1/10000000000 Å angstrom "
        "angstroms; 254/10000 inch inches; 3048/10000 ft "
        "foot feet; 9144/10000 yd yds yard yards; 1609344/1000 mi mile miles"
    ),
    "mass": (
        "1 g gram grams gm gms gramme grammes; 1000 kg kilogram kilograms kilo kilos kgs; 1/1000 mg "
        "milligram milligrams; 1/1000000 µg microgram micrograms; 1000000 tonne tonnes; "
        "45359237/100000 lb lbs pound pounds; 45359237/1600000 oz ounce ounces"
    ),
    "time": (
        "1 s sec secs second seconds; 60 min mins minute minutes; 3600 h hr hrs hour hours; 86400 day "
        "days; 604800 week weeks wk wks; 1/1000 ms millisecond milliseconds; 1/1000000 µs microsecond "
        "microseconds; 1/1000000000 ns nanosecond nanoseconds"
    ),
    "calendar": "1 month months mo; 12 yr yrs year years; 120 decade decades; 1200 century centuries",
    "volume": (
        "1 L l liter liters litre litres; 1/1000 mL ml milliliter milliliters millilitre millilitres "
        "cc; 1/100 cL cl centiliter centiliters; 1/10 dL dl deciliter deciliters"
    ),
    "US volume": (
        "1 gal gallon gallons; 1/4 qt quart quarts; 1/8 pt pint pints; 1/16 cup cups; 1/256 tbsp "
        "tablespoon tablespoons; 1/768 tsp teaspoon teaspoons"
    ),
    "USD": (
        "1 $ dollar dollars usd US$ bucks buck; 1/100 cent cents ¢; 1/4 quarters; 1/10 dime dimes; "
        "1/20 nickel nickels"
    ),
    "EUR": "1 € euro euros eur",
    "GBP": "1 £ gbp quid",
    "JPY": "1 ¥ yen jpy",
    "CNY": "1 yuan cny rmb",
    "INR": "1 ₹ rs rs. rupee rupees inr",
    "KRW": "1 ₩ won krw",
    "RUB": "1 ₽ ruble rubles rouble roubles rub руб рубль рубля рублей",
    "CHF": "1 chf franc francs",
    "peso": "1 peso pesos",
    "CAD": "1 C$ cad",
    "AUD": "1 A$ aud",
    "BRL": "1 R$ real reais brl",
    "SEK": "1 kr krona kronor kroner",
    "PLN": "1 zł zloty zlotys pln",
    "NGN": "1 ₦ naira",
    "PHP": "1 ₱ php",
    "KES": "1 ksh kes",
    "angle": "1 degree degrees deg",
    "radian": "1 rad radian radians",
    "Celsius": "1 °C celsius",
    "Fahrenheit": "1 °F fahrenheit",
    "Kelvin": "1 K kelvin kelvins",
    "energy": "1 J joule joules; 1000 kJ kilojoule kilojoules; 3600000 kWh",
    "calorie": "1 cal calorie calories; 1000 kcal kilocalorie kilocalories",
    "force": "1 N newton newtons; 1000 kN",
    "power": "1 W watt watts; 1000 kW kilowatt kilowatts",
    "voltage": "1 V volt volts; 1/1000 mV",
    "current": "1 A amp amps ampere amperes; 1/1000 mA",
    "resistance": "1 ohm ohms Ω",
    "frequency": "1 Hz hertz; 1000 kHz; 1000000 MHz; 1000000000 GHz",
    "pressure": "1 Pa pascal pascals; 1000 kPa; 101325 atm; 100000 bar; 101325/760 mmHg torr",
    "amount": "1 mol mole moles",
    "byte": "1 byte bytes; 1000 KB kB; 1000000 MB; 1000000000 GB",
    "charge": "1 coulomb coulombs",
    "field": "1 T tesla teslas",
    "electronvolt": "1 eV; 1000 keV; 1000000 MeV; 1000000000 GeV",
    "capacitance": "1 F farad farads",
    "inductance": "1 H henry henries henrys",
    "magnetic flux": "1 Wb weber webers",
    "sound": "1 dB decibel decibels",
    "astronomical length": "1 pc parsec parsecs; 1/206265 AU au; 100000/326156 ly",
    "parts": "1 ppm; 1/1000 ppb",
    "luminous flux": "1 lm lumen lumens",
    "luminous intensity": "1 cd candela candelas",
    "illuminance": "1 lx lux",
    "activity": "1 Bq becquerel becquerels; 37000000000 Ci curie curies",
    "dose": "1 Gy gray grays",
    "equivalent dose": "1 Sv sievert sieverts",
    "atomic mass": "1 Da dalton daltons u amu",
    "conductance": "1 S siemens",
    "data rate": "1 bps; 1000 kbps; 1000000 Mbps; 1000000000 Gbps",
    "pound force": "1 lbf",
    "gauss": "1 G gauss",
    "area": "1 acre acres; 2471/1000 hectare hectares ha",
}
# in Chinese, Japanese and Korean, where they stand behind the digits without a space
ABROAD = {
    "元": "yuan", "块": "yuan", "圆": "yuan", "円": "yen", "원": "won", "米": "m", "厘米": "cm", "毫米": "mm",
    "千米": "km", "公里": "km", "克": "g", "千克": "kg", "公斤": "kg", "小时": "hour", "分钟": "min",
    "秒": "s", "天": "day", "升": "L", "毫升": "mL", "度": "degree", "美元": "dollar", "ドル": "dollar",
    "달러": "dollar", "डॉलर": "dollar", "ডলার": "dollar", "ดอลลาร์": "dollar", "డాలర్లు": "dollar",
    "డాలర్": "dollar", "টাকা": "taka", "रुपये": "rupee", "บาท": "baht", "欧元": "euro",
    "ユーロ": "euro", "유로": "euro", "долларов": "dollar", "доллар": "dollar", "доллара": "dollar",
}  # fmt: skip
COUNTERS = frozenset("个個只本人名张条件辆棵岁次枚匹台箱개명권")
KNOWN = {name: size for dimension, sizes in SIZES.items() for name, size in _sized(dimension, sizes).items()}
SPEEDS = {"mph": ("mile", "hour"), "kph": ("km", "hour"), "kmh": ("km", "hour"), "kmph": ("km", "hour")}
SPEEDS |= {"mpg": ("mile", "gallon"), "fps": ("ft", "s"), "rpm": ("revolution", "min")}
# words that belong to the number itself, in some language: 3 sixteenths, 5 quintillion, 0.3 repeating
NUMBER_WORD = re.compile(
    r"(?:teen|ie|ix|ven|igh|nin|ten|elev|twelf|ur|hundred|thousand|[mbr]illion)ths?$|[a-z]illions?$|fold$|"
    r"^(?:bps|bil|juta|ribu|repeating|recurring|gross|grand|tens|prozent|procent|mil|cien|mille)$"
)
NO_UNIT = frozenset({"unit", "units"})  # words for a unit of any dimension: 18 units, units^2
CURRENCY = (
    r"(?:US\$|C\$|A\$|HK\$|R\$|S\$|NZ\$|\$|€|£|¥|₹|₩|₽|₱|₦|"
    r"(?:USD|EUR|GBP|JPY|CNY|RMB|INR|CHF|CAD|AUD|KSh|Ksh|KES)(?![A-Za-z])|Rs\.?(?![A-Za-z]))"
)
CURRENCIES = frozenset(
    {
        "USD",
        "EUR",
        "GBP",
        "JPY",
        "CNY",
        "INR",
        "KRW",
        "RUB",
        "CHF",
        "CAD",
        "AUD",
        "peso",
        "BRL",
        "SEK",
        "PLN",
        "NGN",
        "PHP",
        "KES",
    }
)
SQUARE = re.compile(r"^(?:square|sq\.?)\s+|^(?:sq)(?=\s)", re.IGNORECASE)
CUBIC = re.compile(r"^(?:cubic|cu\.?)\s+", re.IGNORECASE)
POWERED = re.compile(r"\s*(?:\^\s*\{?\s*(-?\d)\s*\}?|(squared|cubed)\b)")
UNIT_FRACTION = re.compile(
    r"\\frac\s*\{\s*([A-Za-zµ](?:[\w^\s]|\^\{-?\d\})*)\}\s*\{\s*([A-Za-zµ](?:[\w^\s*]|\^\{-?\d\}|\\cdot)*)\}"
)
IN_PARENTHESES = re.compile(r"\(([^()]+)\)")
BETWEEN_UNITS = re.compile(r"^(?:\\cdot|\*|\\times|·|⋅)\s*")
OF_LIGHT = re.compile(r"(?<=eV)\s*/\s*c(?:\s*\^\s*\{?\s*2\s*\}?)?(?!\w)")  # a mass in MeV/c^2
LETTERS = {
    "C": {"Celsius", "coulomb", "charge"},
    "F": {"Fahrenheit", "capacitance"},
}  # which stand for several
PREFIXES = {"f": -15, "p": -12, "n": -9, "µ": -6, "μ": -6, "m": -3, "k": 3, "M": 6, "G": 9}
PREFIXED = {
    "F": "F", "H": "H", "pc": "pc", "Wb": "Wb", "Bq": "Bq", "Gy": "Gy", "Sv": "Sv", "Ci": "Ci", "Da": "Da",
    "lm": "lm", "S": "S", "G": "G", "m": "m", "g": "g", "s": "s", "L": "L",
    "C": "coulomb", "T": "tesla", "Ω": "ohm", "V": "volt", "A": "amp", "J": "joule", "W": "watt",
    "N": "newton", "Pa": "pascal", "eV": "eV", "Hz": "hertz", "mol": "mol", "bar": "bar",
}  # fmt: skip
WORD = re.compile(
    r"(?:°[CF]|US\$|[$€£¥₹₩₽¢Ω]|[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+|[\u0900-\u0dff\u0e00-\u0e7f]+"
    r"|[^\W\d_]+(?:['-][^\W\d_]*)*\.?)"
)


def read_unit(text: str, plainly: bool = True) -> Unit | None:
    """Read the text after a number as a unit.

    Args:
        plainly: whether a space comes before it, so that one letter can be a unit.

    Returns:
        None if it is not surely a unit or a noun. `Unit(1, {})` if it does not say what is counted.
    """
    rest = text.strip().strip(".,;:!").strip()
    rest = re.sub(r"\\(?:mathrm)?Omega", "Ω", re.sub(r"\\(?:upmu|mu)\s*", "µ", rest)).replace("\u2126", "Ω")
    rest = OF_LIGHT.sub("", UNIT_FRACTION.sub(r"\1/(\2)", rest))
    rest = re.sub(r"degrees?\s+(C|F|Celsius|Fahrenheit)\b", lambda m: f"°{m[1][0].upper()}", rest, flags=re.I)
    rest = re.sub(r"^([A-Za-zµ]{1,3})([23])(?![\w^])", r"\1^\2", rest)  # cm2
    unit, over = Unit(Fraction(1), frozenset()), False
    while rest:
        if rest[0] == "/" or (
            re.match(r"(?:per|an?|each|every)\b", rest) and not (rest[0] != "p" and not unit.dimensions)
        ):
            over, rest = True, re.sub(r"^(?:/|per\b|an?\b|each\b|every\b)\s*", "", rest)
            if not rest:
                return None
            if inner := IN_PARENTHESES.match(rest):  # J/(mol K)
                below = read_unit(inner[1])
                if below is None:
                    return None
                unit, rest = _times(unit, below, -1), rest[inner.end() :].lstrip()
            continue
        found = _next_unit(rest, plainly)
        if found is None:
            return None
        one, power, rest = found
        unit = _times(unit, one, -power if over else power)
        rest = BETWEEN_UNITS.sub("", rest.lstrip())
        plainly = True
    return unit


def _next_unit(rest: str, plainly: bool) -> tuple[Unit, int, str] | None:
    """The first unit of a text, its power, and what follows."""
    power = 1
    for pattern, raised in ((SQUARE, 2), (CUBIC, 3)):
        found = pattern.match(rest)
        if found:
            power, rest = raised, rest[found.end() :].lstrip()
    word = WORD.match(rest)
    if word is None:
        return None
    behind = rest[word.end() :]
    raised_to = POWERED.match(behind)
    if raised_to:
        power = {"squared": 2, "cubed": 3}.get(raised_to[2]) or int(raised_to[1])
        behind = behind[raised_to.end() :]
    is_inch = word[0].rstrip(".") == "in" and power != 1
    unit = unit_of("inch" if is_inch else word[0], plainly)
    return None if unit is None else (unit, power, behind.lstrip(" ,;"))


def unit_of(word: str, plainly: bool = True) -> Unit | None:
    """The unit or noun of one word. None if the word changes the meaning of the number."""
    name = word if word in ("rs.",) else word.rstrip(".")
    lower = name.casefold()
    if (lower in TELLING and name != "May") or (
        len(name) == 1 and name.isascii() and name.isalpha() and not plainly
    ):
        return None
    if name in ABROAD:
        return unit_of(ABROAD[name])
    if name in COUNTERS:
        return Unit(Fraction(1), frozenset())
    if name in LETTERS:
        return Unit(Fraction(1), frozenset({(name, 1)}))
    if name == "M":  # molar
        return Unit(Fraction(1000), frozenset({("amount", 1), ("length", -3)}))
    if lower in SPEEDS:
        over, under = SPEEDS[lower]
        return _times(unit_of(over) or _noun(over), unit_of(under) or _noun(under), -1)
    if len(name) == 2 and name[0] == "M" and name not in KNOWN and lower in KNOWN and name != "Mi":
        return None  # Mg is no mg
    for spelling in (name, lower):
        if spelling in KNOWN and (len(spelling) > 1 or spelling == name):
            return _of_size(*KNOWN[spelling])
    if len(name) > 1 and name[0] in PREFIXES and name[1:] in PREFIXED:
        factor, dimension = KNOWN[PREFIXED[name[1:]]]
        return _of_size(factor * Fraction(10) ** PREFIXES[name[0]], dimension)
    pair = name.split("-")
    if len(pair) == 2 and all(part in KNOWN for part in pair):  # ft-lb
        one, other = (Unit(KNOWN[p][0], frozenset({(KNOWN[p][1], 1)})) for p in pair)
        return _times(one, other, 1)
    if "\u3040" <= name[:1] <= "\ud7af":
        return None
    if NUMBER_WORD.search(lower):
        return None
    if lower in EMPTY or lower in NO_UNIT or lower.endswith("ly"):
        return Unit(Fraction(1), frozenset())
    if re.fullmatch(r"[A-Z]{2,4}s|pcs", name):  # CDs
        return _noun(lower)
    is_word = not lower.isascii() or set(lower) & set("aeiouy")
    if len(lower) < 3 or not is_word:
        return None
    return _noun(lower)


def _of_size(factor: Fraction, dimension: str) -> Unit:
    """A unit of a dimension. A litre is a cubic decimetre."""
    if dimension == "volume":
        return Unit(factor / 1000, frozenset({("length", 3)}))
    return Unit(factor, frozenset({(dimension, 1)}))


def _noun(word: str) -> Unit:
    for ending, stem in (("ies", "y"), ("ches", "ch"), ("shes", "sh"), ("xes", "x"), ("sses", "ss")):
        if word.endswith(ending):
            return Unit(Fraction(1), frozenset({(f"#{word.removesuffix(ending)}{stem}", 1)}))
    singular = word.removesuffix("s") if not word.endswith("ss") else word
    return Unit(Fraction(1), frozenset({(f"#{singular}", 1)}))


def _times(unit: Unit, one: Unit, power: int) -> Unit:
    powers = dict(unit.dimensions)
    for name, own in one.dimensions:
        powers[name] = powers.get(name, 0) + own * power
    kept = frozenset((name, n) for name, n in powers.items() if n)
    return Unit(unit.factor * one.factor**power, kept)
