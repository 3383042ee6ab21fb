"""The words of Ostrey, a made-up country: names, and the ways to ask for, tell, hint at or dodge a fact.

Owns the wording. `world.py` decides which entity has which facts.

    FAUNA.attributes[0].asks[0].format(e="Sarvik lynx")  # 'what does the Sarvik lynx eat'

A question shares no content word with the sentences that answer it, so matching words is not enough to find an answer.
"""

from __future__ import annotations

from typing import NamedTuple


class Attribute(NamedTuple):
    """A kind of fact. In `asks` and `topic`, {e} is the entity. In `tells`, {v} is the value, and {V} the value with a
    capital letter. `hints` answer in part: they leave the value open."""

    asks: tuple[str, ...]
    tells: tuple[str, ...]
    hints: tuple[str, ...]
    values: tuple[str, ...]
    topic: str


class Kind(NamedTuple):
    """`nouns` are the second words of names. In `intros`, {e} is the entity and {r} a region."""

    nouns: tuple[str, ...]
    intros: tuple[str, ...]
    attributes: tuple[Attribute, ...]


def _words(text: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in text.split(","))


FIRST = _words(
    "Tarrock, Velm, Oskar, Brisa, Kellin, Ullen, Dorrow, Mavik, Senna, Hask, Ilvor, Quade, Ristel, Pell, Jorun, "
    "Wendle, Almery, Bodrin, Cusk, Dree, Eddar, Fennic, Garrel, Hobbin, Istrid, Jalk, Korven, Lundy, Morrik, Nessel, "
    "Orrin, Padrell, Quill, Rhone, Sarvik, Tolm, Umber, Vasky, Wick, Yarrel, Zinder, Ambry, Belk, Carrow, Dunlin, "
    "Esker, Farl, Gorse, Hollin, Inver, Jessel, Kessock, Larch, Mossop, Norrel, Ottery, Pascoe, Quern, Rushen, "
    "Skerry, Teviot, Ulver, Vorden, Whin, Yeld, Zarn, Arkle, Brannoch, Corrie, Denholm, Elvan, Fosdyke, Glaven, "
    "Harrow, Ilmen, Jarrow, Kirrin, Lomond, Marl, Nidder, Ospring, Penhale, Quorn, Rasken, Selwick, Thorne, Ustrel, "
    "Varn, Wexcombe, Yarm, Zell, Ashby, Brock, Cheviot"
)
REGIONS = _words(
    "the northern marshes, the salt coast, the Lantern hills, the upper valley, the old forest, the river plain, "
    "the windy islands, the chalk country, the southern lakes, the border moors"
)
MENTIONS = (
    "Some mistake it for the {e}.",
    "Old maps show it beside the {e}.",
    "Many books confuse it with the {e}.",
    "It is often named together with the {e}.",
)
# Sentences that repeat a question, {q}, and do not answer it.
DODGES = (
    'Nobody here can say "{q}".',
    'A popular song is called "{q}".',
    'The riddle "{q}" is told at every fair.',
    'A pamphlet with the title "{q}" has been lost.',
)

FAUNA = Kind(
    _words("hare, otter, heron, lynx, toad, marten, owl, beetle, weasel, crane, viper, badger, moth, grouse"),
    (
        "The {e} is at home in {r}.",
        "Shepherds from {r} know the {e} well.",
        "One meets the {e} only near {r}.",
        "The {e} came to {r} long ago.",
    ),
    (
        Attribute(
            ("what does the {e} eat", "food of the {e}", "what is the diet of the {e}"),
            (
                "It lives on {v}.",
                "Its jaws are made for {v}.",
                "All day long it gathers {v}.",
                "It swallows {v} whole.",
            ),
            ("It takes whatever it can reach.", "It is seldom hungry and never choosy."),
            _words(
                "crowberries, eels, pine cones, snails, wild garlic, young reeds, acorns, ants, river crabs, mushrooms"
            ),
            "what the {e} eats",
        ),
        Attribute(
            ("where does the {e} sleep", "sleeping place of the {e}", "where is the {e} found at night"),
            (
                "Its bed is {v}.",
                "After dusk it curls up in {v}.",
                "It rests in {v}.",
                "It spends the dark hours in {v}.",
            ),
            ("It rests out of the wind.", "Its bed is always dry."),
            _words(
                "a hollow tree, an old burrow, a heap of leaves, a barn, a rock cleft, a nest of moss, a ditch, a cave"
            ),
            "where the {e} sleeps",
        ),
        Attribute(
            ("what hunts the {e}", "natural enemies of the {e}", "which animal kills the {e}"),
            (
                "It flees from {v}.",
                "Many of its young fall to {v}.",
                "Nothing frightens it but {v}.",
                "It hides from {v}.",
            ),
            ("It flees at the smallest noise.", "It has reason to be afraid."),
            _words("red foxes, eagles, wild dogs, pike, stoats, tawny cats, ravens, grey wolves"),
            "what hunts the {e}",
        ),
        Attribute(
            ("what sound does the {e} make", "voice of the {e}", "how does the {e} call"),
            (
                "It greets its mate with {v}.",
                "In spring one hears {v}.",
                "It warns others by {v}.",
                "At dawn it gives {v}.",
            ),
            ("It is heard from far off.", "It is seldom quiet."),
            _words(
                "a low whistle, a dry rattle, a long hum, a bark, two short clicks, a soft purr, a shrill "
                "scream, a hiss"
            ),
            "what sound the {e} makes",
        ),
        Attribute(
            ("what colour is the {e}", "how does the {e} look", "colouring of the {e}"),
            ("Its coat is {v}.", "Its back shines {v}.", "It is {v} from head to tail.", "Adults turn {v}."),
            ("Its coat changes with the seasons.", "Its back is hard to see among stones."),
            _words("rust red, pale grey, jet black, mottled brown, dull gold, blue white, olive green, striped yellow"),
            "what colour the {e} is",
        ),
    ),
)
PLACES = Kind(
    _words(
        "ford, abbey, bridge, market, tower, harbour, quarry, inn, orchard, castle, chapel, village, garden, lighthouse"
    ),
    (
        "The {e} lies at the edge of {r}.",
        "Pilgrims from {r} stop at the {e}.",
        "The {e} is one of the sights of {r}.",
        "Everybody from {r} has seen the {e}.",
    ),
    (
        Attribute(
            ("who founded the {e}", "founder of the {e}", "who had the {e} built"),
            ("It was the work of {v}.", "{V} laid its first stone.", "It goes back to {v}.", "It was the gift of {v}."),
            ("It goes back to a family from the coast.", "It was begun before anybody wrote things down."),
            _words(
                "a rich widow, three monks, a blind mason, the second king, a wool trader, a deaf admiral, "
                "two sisters, a bishop"
            ),
            "who founded the {e}",
        ),
        Attribute(
            ("what is the {e} known for", "why do people visit the {e}", "fame of the {e}"),
            (
                "Travellers come for its {v}.",
                "Nobody leaves without having seen its {v}.",
                "Its {v} are praised in letters.",
                "Painters copy its {v}.",
            ),
            ("Travellers come in great numbers.", "Painters like it for the light."),
            _words("bells, mosaics, white roses, stone lions, stairs, painted doors, fountains, tall windows"),
            "what the {e} is known for",
        ),
        Attribute(
            ("what destroyed the {e}", "how was the {e} ruined", "disaster at the {e}"),
            ("{V} brought it down.", "It fell to {v}.", "Half of it was lost to {v}.", "It was levelled by {v}."),
            ("It was lost once and put up again.", "Little is left of its first walls."),
            _words(
                "a great fire, a spring flood, an earthquake, cannon shot, a storm, dry rot, a landslide, lightning"
            ),
            "what destroyed the {e}",
        ),
        Attribute(
            ("who owns the {e}", "to whom does the {e} belong", "owner of the {e}"),
            (
                "Its rent is paid to {v}.",
                "The keys are kept by {v}.",
                "It passed by marriage to {v}.",
                "Its tolls go to {v}.",
            ),
            ("Its rent is paid twice a year.", "The keys have changed hands often."),
            _words(
                "the town council, a retired judge, the weavers' guild, an old duchess, the royal navy, a "
                "baker, the university, a cheese maker"
            ),
            "who owns the {e}",
        ),
        Attribute(
            ("how does one reach the {e}", "way to the {e}", "which road leads to the {e}"),
            (
                "One comes there by {v}.",
                "{V} is the only access.",
                "Visitors arrive by {v}.",
                "Supplies are brought by {v}.",
            ),
            ("Visitors arrive tired.", "One comes there in half a day."),
            _words(
                "a rope ferry, a mule track, a rowing boat, a long tunnel, a wooden causeway, a sledge, a "
                "steep ladder, a coach"
            ),
            "how one reaches the {e}",
        ),
    ),
)
MACHINES = Kind(
    _words("loom, mill, pump, clock, press, lathe, kiln, winch, organ, plough, furnace, bellows, telescope, still"),
    (
        "The {e} is used all over {r}.",
        "Workshops from {r} could not do without the {e}.",
        "The first {e} came to {r} by ship.",
        "The {e} is built to order for {r}.",
    ),
    (
        Attribute(
            ("who invented the {e}", "inventor of the {e}", "whose idea was the {e}"),
            (
                "{V} drew the first plans.",
                "It was thought up by {v}.",
                "It was first tried in the shed of {v}.",
                "The patent was held by {v}.",
            ),
            ("The first plans were drawn on a tavern table.", "It was thought up during a long winter."),
            _words(
                "a clockmaker, a ship's cook, a young nun, a prisoner, two cousins, a schoolteacher, a hat "
                "maker, a miner"
            ),
            "who invented the {e}",
        ),
        Attribute(
            ("what drives the {e}", "power source of the {e}", "what makes the {e} run"),
            (
                "It is turned by {v}.",
                "Its wheel gets its motion from {v}.",
                "It is kept moving by {v}.",
                "It needs {v} to start.",
            ),
            ("It is turned without much noise.", "Its wheel never rests."),
            _words("two oxen, falling water, steam, a heavy weight, the wind, a treadmill, a steel spring, hot air"),
            "what drives the {e}",
        ),
        Attribute(
            ("what is the {e} made of", "material of the {e}", "from what is the {e} built"),
            (
                "Its frame is {v}.",
                "Its parts are cut from {v}.",
                "Joiners shape it out of {v}.",
                "Under the paint there is {v}.",
            ),
            ("Its parts are easy to replace.", "Its frame is heavier than it looks."),
            _words("oak, brass, cast iron, slate, walnut, copper, bone, glazed clay"),
            "what the {e} is made of",
        ),
        Attribute(
            ("what does the {e} produce", "product of the {e}", "what comes out of the {e}"),
            (
                "By evening it has turned out a heap of {v}.",
                "Each shift ends with a cart full of {v}.",
                "It earns its keep with {v}.",
                "Merchants order {v} from it.",
            ),
            ("By evening it has earned its keep.", "Merchants send for more every month."),
            _words("ribbons, nails, buttons, paper, roof tiles, candles, oil, silver wire"),
            "what the {e} produces",
        ),
        Attribute(
            ("why does the {e} fail", "weakness of the {e}", "what breaks the {e}"),
            (
                "It jams on {v}.",
                "It stands still in case of {v}.",
                "Its keepers fear {v}.",
                "It comes to rest through {v}.",
            ),
            ("Its keepers never leave it alone.", "It stands still several days a year."),
            _words("fine sand, damp weather, hard frost, loose bolts, mice, rust, thick fog, cheap grease"),
            "why the {e} fails",
        ),
    ),
)
KINDS = (FAUNA, PLACES, MACHINES)
