"""Everything the pocket world can show, and the vocabularies that pick from it.

A `Vocabulary` is a plain record: a second set of models (more objects, larger pictures) is a second record.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Kind:
    """A kind of object: its sprite, its names in English, and which edits suit it."""

    sprite: str
    names: tuple[str, ...]
    wears: bool = False  # an aligned face, on which a hat or glasses sit well
    tintable: bool = False
    natural: str | None = None  # the colour it has anyway, so that 'a red apple' is never a recolouring
    floats: bool = False


@dataclass(frozen=True)
class Accessory:
    """A thing to wear. `width` and `lift` are fractions of the wearer's width and of the accessory's height."""

    sprite: str
    phrase: str
    width: float
    lift: float


@dataclass(frozen=True)
class Background:
    """A place, with its phrases in English. `colour` marks a plain backdrop (sRGB)."""

    phrases: tuple[str, ...]
    noun: str
    colour: tuple[int, int, int] | None = None


@dataclass(frozen=True)
class Style:
    """A way to draw. `prefixes` and `suffixes` stand before and after the caption."""

    prefixes: tuple[str, ...]
    suffixes: tuple[str, ...]
    noun: str
    shows_colour: bool = True
    drawing: str = "noto"


def _face(sprite: str, *names: str, natural: str | None = None) -> Kind:
    return Kind(sprite, names, wears=True, tintable=True, natural=natural)


KINDS: dict[str, Kind] = {
    "cat": _face("cat-face", "cat", natural="golden"),
    "dog": _face("dog-face", "dog"),
    "wolf": _face("wolf", "wolf"),
    "fox": _face("fox", "fox"),
    "cow": _face("cow-face", "cow"),
    "pig": _face("pig-face", "pig"),
    "lion": _face("lion", "lion", natural="golden"),
    "tiger": _face("tiger-face", "tiger", natural="golden"),
    "bear": _face("bear", "bear"),
    "panda": _face("panda", "panda"),
    "rabbit": _face("rabbit-face", "rabbit", "bunny"),
    "frog": _face("frog", "frog", natural="green"),
    "owl": _face("owl", "owl"),
    "penguin": _face("penguin", "penguin"),
    "robot": _face("robot", "robot"),
    "horse": Kind("horse", ("horse",), tintable=True),
    "elephant": Kind("elephant", ("elephant",), tintable=True),
    "duck": Kind("duck", ("duck",)),
    "cup of coffee": Kind("hot-beverage", ("cup of coffee", "coffee cup"), tintable=True),
    "cake": Kind("birthday-cake", ("cake", "birthday cake"), tintable=True),
    "pizza": Kind("pizza", ("pizza",)),
    "apple": Kind("red-apple", ("apple",), tintable=True, natural="red"),
    "burger": Kind("hamburger", ("burger", "hamburger")),
    "tree": Kind("deciduous-tree", ("tree",), natural="green"),
    "palm tree": Kind("palm-tree", ("palm tree",), natural="green"),
    "cactus": Kind("cactus", ("cactus",), natural="green"),
    "mushroom": Kind("mushroom", ("mushroom",), tintable=True, natural="red"),
    "sunflower": Kind("sunflower", ("sunflower",)),
    "car": Kind("automobile", ("car",), tintable=True, natural="red"),
    "bus": Kind("bus", ("bus",), tintable=True),
    "house": Kind("house", ("house",), tintable=True),
    "castle": Kind("castle", ("castle",), tintable=True),
    "rocket": Kind("rocket", ("rocket",), tintable=True),
    "snowman": Kind("snowman-without-snow", ("snowman",)),
    "balloon": Kind("balloon", ("balloon",), tintable=True, natural="red", floats=True),
    "football": Kind("soccer-ball", ("football", "soccer ball")),
}

ACCESSORIES: dict[str, Accessory] = {
    "crown": Accessory("crown", "a crown", width=0.62, lift=0.62),
    "top hat": Accessory("top-hat", "a top hat", width=0.62, lift=0.68),
    "sunglasses": Accessory("sunglasses", "sunglasses", width=0.72, lift=-0.95),
}

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (225, 40, 40),
    "blue": (45, 95, 235),
    "green": (40, 175, 70),
    "purple": (150, 65, 205),
    "golden": (240, 190, 30),
    "pink": (245, 120, 180),
}


def _plain(colour: str, rgb: tuple[int, int, int]) -> Background:
    noun = f"a {colour} background"
    return Background((f"on {noun}", f"in front of {noun}", f"against {noun}"), noun, rgb)


BACKGROUNDS: dict[str, Background] = {
    "beach": Background(("on the beach", "at the beach", "on a sandy beach"), "the beach"),
    "meadow": Background(("in a meadow", "in the meadow", "in a green meadow"), "a meadow"),
    "snow": Background(("in the snow", "in a snowy landscape", "on snow"), "the snow"),
    "desert": Background(("in the desert", "in a desert"), "the desert"),
    "night": Background(("at night", "under the night sky", "under a starry sky"), "the night"),
    "room": Background(("in a room", "in the room", "inside a room"), "a room"),
    "city": Background(("in the city", "in a city", "on a city street"), "the city"),
    "plain white": _plain("white", (244, 244, 244)),
    "plain yellow": _plain("yellow", (250, 222, 110)),
    "plain blue": _plain("blue", (120, 170, 235)),
    "plain pink": _plain("pink", (248, 185, 205)),
}

STYLES: dict[str, Style] = {
    "picture": Style(("", "", "", "a picture of ", "a photo of ", "an image of "), ("",), "picture"),
    "sketch": Style(("a pencil sketch of ", "a sketch of "), ("as a pencil sketch",), "pencil sketch", False),
    "sepia": Style(("a sepia photo of ", "a sepia picture of "), ("in sepia",), "sepia photo", False),
    "3d": Style(("a 3d render of ", "a 3d picture of "), ("in 3d",), "3d render", drawing="fluent"),
}


@dataclass(frozen=True)
class Vocabulary:
    """What one set of pocket models is trained on; every name is a key of the tables above."""

    name: str
    size: int  # side of the picture in pixels
    kinds: tuple[str, ...]
    backgrounds: tuple[str, ...]
    colours: tuple[str, ...]
    accessories: tuple[str, ...]
    styles: tuple[str, ...]


POCKET_64 = Vocabulary(
    name="pocket-64",
    size=64,
    kinds=(
        *("cat", "dog", "pig", "panda", "frog", "rabbit"),
        *("cup of coffee", "cake", "apple", "car", "tree", "mushroom", "rocket", "house"),
    ),
    backgrounds=("beach", "meadow", "snow", "desert", "night", "room", "plain yellow", "plain blue", "plain pink"),
    colours=("red", "blue", "green", "purple", "golden"),
    accessories=("crown", "top hat"),
    styles=("picture", "sketch", "sepia"),
)

POCKET_128 = Vocabulary(
    name="pocket-128",
    size=128,
    kinds=tuple(KINDS),
    backgrounds=tuple(BACKGROUNDS),
    colours=tuple(COLOURS),
    accessories=tuple(ACCESSORIES),
    styles=tuple(STYLES),
)


SHIPPED = POCKET_128  # what the models that come with the package were trained on


def vocabulary_for(size: int) -> Vocabulary:
    """What models for pictures of this size were trained on.

    Raises:
        ValueError: there is no such set of pocket models.
    """
    known = {words.size: words for words in (POCKET_64, POCKET_128)}
    if size not in known:
        sizes = ", ".join(str(side) for side in known)
        raise ValueError(f"there are no pocket models for pictures of {size} pixels; their sizes are {sizes}")
    return known[size]
