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
        ("backpack", "tent", "hammock", "stove", "cookset", "lantern", "canteen", "compass", "tarp", "headlamp"),
        "for nights under the open sky",
    ),
    Department(
        ("Home", "Kitchen"),
        ("knife", "skillet", "saucepan", "stockpot", "whisk", "ladle", "grater", "kettle", "teapot", "trivet"),
        "for people who cook every day",
    ),
    Department(
        ("Home", "Nursery"),
        ("crib", "mattress", "mobile", "nightlight", "highchair", "bib", "playmat", "stroller", "rattle", "tricycle"),
        "for the first years of a child",
    ),
    Department(
        ("Office", "Stationery"),
        ("pen", "inkwell", "notebook", "blotter", "planner", "stapler", "binder", "folder", "bookend", "globe"),
        "for letters, lists and ledgers",
    ),
    Department(
        ("Outdoors", "Garden"),
        ("seeds", "trowel", "planter", "rake", "shears", "gloves", "trellis", "sprinkler", "wheelbarrow", "birdbath"),
        "for beds, borders and balconies",
    ),
    Department(
        ("Sports", "Cycling"),
        ("helmet", "padlock", "bell", "saddle", "pedals", "pump", "pannier", "fender", "jersey", "poncho"),
        "for the daily ride and the long one",
    ),
    Department(
        ("Beauty", "Skin Care"),
        ("cleanser", "toner", "serum", "moisturizer", "sunscreen", "mask", "balm", "scrub", "lotion", "soap"),
        "for calm and even skin",
    ),
    Department(
        ("Books", "Fiction"),
        (
            "volume one",
            "volume two",
            "volume three",
            "volume four",
            "volume five",
            "volume six",
            "volume seven",
            "volume eight",
            "volume nine",
            "volume ten",
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
