"""The words of the pretrained world's problems: names, and wordings with gaps. All were written before any
model was trained on them.

Each list of wordings is divided (`wordings_of`): those at even places are for training questions, those at
odd places for held-out questions. So the two have no sentence in common, whatever fills the gaps.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Part = Literal["train", "evaluate"]

_NAMES = """
Ada Ahmed Aisha Akira Alba Amir Ana Anders Anna Arun Astrid Ben Bianca Bilal Carla Carlos Chen Chloe Clara
Dan Daria David Deepa Diego Dora Edith Elena Elif Emil Emma Erik Esther Eva Farid Fatima Felix Fiona Frida
George Grace Greta Hana Hannah Hassan Helen Hugo Ibrahim Ida Imran Ines Irina Isaac Ivan Jack Jana Jane
Javier John Jonas Josef Julia Kai Karim Karin Kate Kenji Khadija Klara Lars Laura Layla Lea Leo Lena Lina
Liam Lucas Lucy Maja Malik Marco Maria Marta Max Maya Mei Mia Mila Mira Mohamed Nadia Naomi Nina Nora Noah
Olga Oliver Omar Oscar Otto Pablo Paul Petra Pia Priya Rahul Ravi Rita Robert Rosa Ruth Sam Sana Sara Simon
Sofia Stefan Sven Tara Theo Tim Tom Uma Vera Victor Wanda Yara Yusuf Zoe
"""
NAMES = _NAMES.split()


@dataclass(frozen=True)
class Setting:
    """A setting of problems: which things, and what happens to them.

    Attributes:
        things: plural nouns.
        kinds: two adjectives for two sorts of them.
        holder: what holds several of them, singular and plural.
        more, fewer: changes by {k}.
    """

    things: tuple[str, ...]
    kinds: tuple[str, str]
    holder: tuple[str, str]
    more: tuple[str, ...]
    fewer: tuple[str, ...]


OPENINGS = (
    "{name} has {n} {things}.",
    "At the beginning {name} owns {n} {things}.",
    "There are {n} {things} that belong to {name}.",
    "{name} counts the {things} and finds {n}.",
    "On Monday {name} has {n} {things}.",
    "{name} starts the week with {n} {things}.",
    "In the morning {name} has exactly {n} {things}.",
    "We know that {name} has {n} {things} today.",
)
SUMS = (
    "{name} has {a} {kind} {things} and {b} {other} {things}.",
    "Among the {things} of {name}, {a} are {kind} and {b} are {other}.",
    "{name} owns {a} {things} that are {kind} and {b} that are {other}.",
    "{name} looks at the {things}: {a} {kind} ones and {b} {other} ones.",
    "{a} {kind} {things} and {b} {other} {things} belong to {name}.",
    "There are {a} {kind} and {b} {other} {things}, and all of them are {name}'s.",
)
PRODUCTS = (
    "{name} has {a} {holders} with {b} {things} in each {holder}.",
    "{name} fills {a} {holders} and puts {b} {things} into every {holder}.",
    "There are {a} {holders}. Each {holder} holds {b} {things}, and all of them belong to {name}.",
    "{name} brings {a} {holders}, and in each {holder} there are {b} {things}.",
    "Every {holder} of {name} holds {b} {things}, and {name} has {a} {holders}.",
    "{name} opens {a} {holders}. In every one of them {name} finds {b} {things}.",
)
ENDS = (
    "How many {things} does {name} have now?",
    "What is the number of {things} that {name} has in the end?",
    "How many {things} does {name} have in total?",
    "Count the {things} of {name}: how many are there now?",
    "In the end, how many {things} are {name}'s?",
    "Tell how many {things} {name} has after all this.",
)
SHARES = (
    "{name} divides all of the {things} equally among {k} friends. How many {things} does each friend get?",
    "Then {k} children share all these {things} equally. What is the number of {things} for each child?",
    "{name} puts all of them into {k} bags, equally many into each. How many {things} are in one bag?",
    "All of the {things} go to {k} people, and everybody gets the same number. How many does one person get?",
    "{name} makes {k} equal piles of all the {things}. How many {things} are in each pile?",
    "All the {things} are laid out in {k} rows of the same length. How many {things} does a row have?",
)
PRICES = (
    "{name} sells all of the {things} for {k} dollars each. How many dollars does {name} get?",
    "Each of these {things} is worth {k} dollars. How many dollars are all of them worth together?",
    "For every one of them {name} is paid {k} dollars. How much money does {name} receive, in dollars?",
    "Somebody buys all the {things} at a price of {k} dollars apiece. What does {name} earn, in dollars?",
    "At {k} dollars for each, what is the value in dollars of all the {things} that {name} has?",
    "A shop pays {k} dollars for each and takes all of {name}'s {things}. How many dollars does that make?",
)
# ends of tasks whose price has to be looked up
LOOK_UPS = (
    "All of these {things} are sold at the price in the list. How many dollars is that?",
    "The price list tells what one of the {things} costs. What are all of them worth, in dollars?",
    "Look up the price of the {things}. How many dollars do all of them bring together?",
    "Somebody pays the listed price for each of the {things}. How much money is that, in dollars?",
    "What is the value in dollars of all the {things}, by the price list?",
    "How many dollars are all the {things} worth, if one of them costs what the list says?",
)
SETTINGS = (
    Setting(
        ("apples", "pears", "oranges", "lemons", "plums", "melons", "peaches"),
        ("ripe", "green"),
        ("basket", "baskets"),
        (
            "{name} picks {k} more.",
            "A neighbour brings {k} more of them.",
            "{name} buys another {k} at the market.",
            "{k} further {things} arrive from the garden of an aunt.",
            "Later {name} is given {k} more {things}.",
            "From a tree behind the house come another {k} {things}.",
        ),
        (
            "{name} eats {k} of them.",
            "{k} of the {things} turn out to be bad and are thrown away.",
            "{name} gives {k} {things} to a neighbour.",
            "A cook takes away {k} of them.",
            "{name} uses {k} {things} for a cake.",
            "{k} of them fall into a river and are lost.",
        ),
    ),
    Setting(
        ("marbles", "stickers", "coins", "stamps", "postcards", "shells", "buttons"),
        ("old", "new"),
        ("box", "boxes"),
        (
            "{name} wins {k} more in a game.",
            "A cousin sends {k} {things} by mail.",
            "{name} finds {k} more in a drawer.",
            "For a birthday {name} receives another {k} {things}.",
            "{name} trades a toy for {k} more {things}.",
            "{k} {things} are added to the collection.",
        ),
        (
            "{name} loses {k} of them on the way to school.",
            "{name} hands {k} {things} over to a cousin.",
            "{k} of the {things} are given away.",
            "A little brother takes {k} of them and does not return them.",
            "{name} trades {k} {things} for a toy.",
            "In a game {name} loses {k} {things}.",
        ),
    ),
    Setting(
        ("books", "magazines", "comics", "notebooks", "maps", "albums"),
        ("thick", "thin"),
        ("shelf", "shelves"),
        (
            "{name} buys {k} more.",
            "The library gives {k} {things} to {name}.",
            "A friend returns {k} {things} that {name} had lent.",
            "{k} more come in a parcel.",
            "{name} inherits another {k} {things}.",
            "At a sale {name} takes {k} further {things} home.",
        ),
        (
            "{name} lends {k} of them to a friend.",
            "{k} {things} are damaged by water and thrown away.",
            "{name} donates {k} {things} to a school.",
            "A student borrows {k} of them.",
            "{name} gets rid of {k} {things}.",
            "{k} of these {things} are sent to a museum.",
        ),
    ),
    Setting(
        ("cookies", "muffins", "pancakes", "sandwiches", "pies", "rolls", "pretzels"),
        ("sweet", "salty"),
        ("tray", "trays"),
        (
            "{name} bakes {k} more.",
            "A baker adds {k} to them.",
            "Another {k} come out of the oven.",
            "Two hours later {name} makes {k} further {things}.",
            "{name}'s mother prepares {k} more {things}.",
            "{k} more {things} are delivered.",
        ),
        (
            "Hungry guests eat {k} of them.",
            "{k} {things} are burnt and cannot be used.",
            "{name} takes {k} {things} to the office.",
            "The dog steals {k} of them.",
            "At noon {k} {things} have been eaten.",
            "{name} packs {k} of the {things} for a trip.",
        ),
    ),
    Setting(
        ("chairs", "tables", "lamps", "mirrors", "benches", "carpets"),
        ("wooden", "painted"),
        ("room", "rooms"),
        (
            "{name} builds {k} more.",
            "A truck brings {k} {things}.",
            "{name} orders another {k} {things}, and they arrive.",
            "A hotel that closes gives {name} {k} {things}.",
            "{k} {things} are repaired and come back.",
            "From the cellar {name} fetches {k} more {things}.",
        ),
        (
            "{k} of them break.",
            "{name} rents {k} {things} out.",
            "A school takes {k} of the {things}.",
            "{name} sends {k} {things} to be repaired.",
            "{k} {things} are too old and are burnt.",
            "For a wedding {k} of them are carried away.",
        ),
    ),
    Setting(
        ("sheep", "goats", "hens", "ducks", "horses", "rabbits", "cows"),
        ("white", "brown"),
        ("barn", "barns"),
        (
            "In spring {k} young ones are born.",
            "{name} buys {k} {things} from another farm.",
            "{k} {things} that were lost come back.",
            "A farmer leaves {k} more with {name}.",
            "{name} gets {k} {things} as a present.",
            "At an auction another {k} {things} are bought.",
        ),
        (
            "{k} of them run away.",
            "{name} moves {k} {things} to another farm.",
            "A neighbour receives {k} {things} from {name}.",
            "In winter {k} of the {things} fall ill and are taken away.",
            "{name} sets {k} of them free.",
            "{k} {things} are given to a zoo.",
        ),
    ),
    Setting(
        ("pencils", "brushes", "crayons", "rulers", "pens", "chalks"),
        ("long", "short"),
        ("case", "cases"),
        (
            "{k} more are bought for school.",
            "A teacher hands {k} {things} to {name}.",
            "Then {name} discovers another {k} under the bed.",
            "{k} {things} come as a gift from a shop.",
            "An uncle adds {k} {things}.",
            "After lunch {name} gets {k} further {things} from a classmate.",
        ),
        (
            "{k} of them are used up.",
            "At school {k} {things} disappear.",
            "{k} {things} break in the middle and are of no use.",
            "Then {name} leaves {k} of them to a sister.",
            "In the rain {k} {things} are spoilt.",
            "A classmate keeps {k} of the {things}.",
        ),
    ),
    Setting(
        ("flowers", "roses", "tulips", "bushes", "seedlings", "cactuses"),
        ("red", "yellow"),
        ("pot", "pots"),
        (
            "{name} plants {k} more.",
            "Over the summer {k} new {things} grow.",
            "A gardener brings {k} {things}.",
            "{name} digs up {k} {things} in the forest and adds them.",
            "{k} more are bought in a nursery.",
            "A school garden gives {name} {k} {things}.",
        ),
        (
            "{k} of them wither.",
            "A storm destroys {k} {things}.",
            "{name} cuts {k} of the {things} down.",
            "Snails eat {k} of them.",
            "{name} gives {k} {things} to a hospital.",
            "{k} {things} freeze in a cold night.",
        ),
    ),
)


def wordings_of(every: Sequence[str], part: Part) -> Sequence[str]:
    """The wordings of one part of the questions.

    >>> wordings_of(["a", "b", "c", "d"], "train"), wordings_of(["a", "b", "c", "d"], "evaluate")
    (['a', 'c'], ['b', 'd'])
    """
    return every[0 if part == "train" else 1 :: 2]
