"""The words of the demo catalogue: departments, kinds of item in the order in which people buy them, styles, syllables.

Data only; `idgr.corpus.demo` makes items and histories of it.
"""

from __future__ import annotations

from typing import NamedTuple


class Department(NamedTuple):
    """A shelf of the shop.

    Args:
        path: its place among the categories.
        kinds: what is sold, in the order of a project: whoever has one kind comes back for the next.
        use: ends a description.
    """

    path: tuple[str, str]
    kinds: tuple[str, ...]
    use: str


DEPARTMENTS = (
    Department(
        ("Outdoors", "Camping"),
        (
            "backpack",
            "tent",
            "sleeping bag",
            "camp stove",
            "cookset",
            "lantern",
            "water filter",
            "trekking poles",
            "hammock",
            "compass",
        ),
        "for nights under the open sky",
    ),
    Department(
        ("Home", "Kitchen"),
        (
            "knife",
            "cutting board",
            "frying pan",
            "saucepan",
            "stockpot",
            "mixing bowl",
            "baking tray",
            "whisk",
            "kettle",
            "teapot",
        ),
        "for people who cook every day",
    ),
    Department(
        ("Home", "Nursery"),
        (
            "crib",
            "mattress",
            "changing table",
            "night light",
            "high chair",
            "bib",
            "play mat",
            "stroller",
            "building blocks",
            "tricycle",
        ),
        "for the first years of a child",
    ),
    Department(
        ("Office", "Stationery"),
        (
            "fountain pen",
            "ink bottle",
            "notebook",
            "desk pad",
            "pencil case",
            "planner",
            "stapler",
            "file box",
            "desk lamp",
            "bookend",
        ),
        "for letters, lists and ledgers",
    ),
    Department(
        ("Outdoors", "Garden"),
        (
            "seeds",
            "seed tray",
            "trowel",
            "watering can",
            "flower pot",
            "pruning shears",
            "gloves",
            "trellis",
            "compost bin",
            "rain barrel",
        ),
        "for beds, borders and balconies",
    ),
    Department(
        ("Sports", "Cycling"),
        (
            "helmet",
            "bike lock",
            "bike light",
            "bottle cage",
            "saddle",
            "floor pump",
            "tire lever",
            "pedals",
            "pannier",
            "rain cape",
        ),
        "for the daily ride and the long one",
    ),
    Department(
        ("Beauty", "Skin Care"),
        (
            "cleanser",
            "toner",
            "serum",
            "eye cream",
            "moisturizer",
            "sunscreen",
            "face mask",
            "lip balm",
            "hand cream",
            "body oil",
        ),
        "for calm and even skin",
    ),
    Department(
        ("Books", "Fiction"),
        (
            "novel volume one",
            "novel volume two",
            "novel volume three",
            "novel volume four",
            "novel volume five",
            "novel volume six",
            "novel volume seven",
            "novel volume eight",
            "novel volume nine",
            "novel volume ten",
        ),
        "for readers who cannot stop at one",
    ),
)

# A style is a look that lines of many brands come in: its adjective, its colour, its motif.
STYLES = (
    ("Alpine", "glacier blue", "mountain ridges"),
    ("Nordic", "birch white", "plain wood grain"),
    ("Harbor", "navy", "ropes and anchors"),
    ("Desert", "sand", "dunes at noon"),
    ("Meadow", "clover green", "wild grasses"),
    ("Vintage", "sepia", "old postcards"),
    ("Lunar", "silver", "craters and moons"),
    ("Ember", "rust red", "glowing coals"),
    ("Orchard", "apple green", "blossoming branches"),
    ("Velvet", "burgundy", "soft folds"),
    ("Industrial", "graphite", "rivets and steel"),
    ("Tropical", "mango", "palm leaves"),
    ("Polar", "ice white", "drifting snow"),
    ("Baroque", "gold", "curling ornaments"),
    ("Urban", "concrete grey", "city skylines"),
    ("Coral", "salmon pink", "reef branches"),
    ("Thistle", "mauve", "highland flowers"),
    ("Copper", "bronze", "hammered metal"),
    ("Midnight", "black", "scattered stars"),
    ("Saffron", "amber", "spice markets"),
    ("Fjord", "teal", "still water"),
    ("Savanna", "ochre", "grazing herds"),
    ("Porcelain", "cobalt", "painted tiles"),
    ("Cedar", "chestnut", "growth rings"),
)

# Brands that nobody owns, as far as we know. A larger shop makes up more of syllables.
BRANDS = (
    "Amberlund",
    "Brontide",
    "Calvero",
    "Dovrin",
    "Eskilde",
    "Fennmark",
    "Grimsol",
    "Halvik",
    "Ildera",
    "Jorvane",
    "Kelspar",
    "Lumetta",
    "Mirendo",
    "Nostrel",
    "Ovanta",
    "Pellworth",
    "Quillane",
    "Rostwick",
    "Sundrell",
    "Tavishko",
    "Ulmbach",
    "Vintrosa",
    "Wexholm",
    "Yarlund",
    "Zephyrino",
    "Ankorin",
    "Borvista",
    "Crenshol",
    "Dulmora",
    "Evenmoor",
    "Folkrund",
    "Gantheri",
    "Hespera",
    "Inkvara",
    "Juvenor",
    "Kroneval",
    "Lindqvar",
    "Mossgrim",
    "Nettlan",
    "Oxbrook",
)

SYLLABLES = (
    ("ar", "bel", "cor", "dan", "el", "fen", "gal", "hol", "is", "jun", "kel", "lor", "mar", "nor", "or", "pel"),
    ("a", "e", "i", "o", "u", "ai", "ea", "io"),
    ("ba", "dex", "fia", "gren", "lin", "mont", "na", "quist", "ra", "s", "ta", "ton", "va", "vik", "wen", "zo"),
)

# What a distracting shop puts before the words that tell its items apart.
BOILERPLATE = (
    "Brand new and in stock",
    "Official product page",
    "Free shipping on every order",
    "Best price guaranteed",
    "Great gift for any occasion",
    "Top rated by our customers",
)
