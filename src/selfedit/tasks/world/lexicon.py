"""The words of the embedded world: regular two-word names, closed categories, and the split of every name by hash.

A name is two words that are one token each (``worldbase.build_tokenizer``), so that copying a name is learnable by a
model of a few million parameters. An *identifying* kind (person, town, company, ship) has over 20 000 names; a
*category* kind is a short list of common nouns, all starting with a consonant ("a {v}" is always right).
"""

from __future__ import annotations

import random
import zlib
from functools import cache
from itertools import product
from typing import Literal, get_args

Split = Literal["pretrain", "train", "dev", "test"]
SPLITS: tuple[Split, ...] = get_args(Split)

# Share of a kind's names in each split, in twentieths, in the order of SPLITS.
_TWENTIETHS = (12, 3, 2, 3)

_FEMALE = """Ada Alma Anna Berta Bianca Bella Carla Clara Cora Dagny Dina Dora Edith Ella Elsa Emma Erna Fanny Flora
Freya Gerda Gina Greta Hanna Hedda Helga Hilda Ida Ilse Inga Irma Jana Jolan Judith Julia Kara Karin Kira Klara Lara
Laura Lena Lina Lotte Lucia Magda Maria Marta Mila Mira Mona Nadia Nelly Nina Nora Olga Ottilie Paula Petra Ragna
Rita Rosa Runa Sara Selma Silva Stella Tanja Tekla Tilda Ulla Ursula Vera Vilma Wanda""".split()
_MALE = """Abel Adam Albin Anders Anton Arne Axel Bela Boris Bruno Carl Casper Conrad Dag David Dirk Edgar Egon Emil
Erik Ernst Felix Finn Frank Fritz Georg Gustav Hans Harald Henrik Hugo Igor Ivan Jakob Jan Jens Johan Jonas Karl Kaspar
Knut Konrad Kurt Lars Leo Leon Ludwig Magnus Marek Martin Max Milan Moritz Nils Olaf Oskar Otto Paul Pavel Peter Ralf
Roland Rolf Rudolf Samuel Simon Stefan Sven Tobias Tomas Ulrich Viktor Walter Werner Yorick""".split()
_TOWN_FIRST = """Upper Lower Little Great Old New North South East West Port Fort Castle Market Abbey Bishop King Queen
Saint Royal High Low Long Broad Deep Far Near Inner Outer Middle Cold Warm Dry Wet Stone Iron Copper Silver Golden Lead
Salt Sand Clay Chalk Moss Fern Reed Thorn Bramble Hazel Rowan Alder Aspen Ivy Holly Heather Clover Barley Wheat Rye
Oat Apple Pear Plum Cherry Berry Fox Wolf Bear Stag Boar Otter Badger Hare Swan Heron Crane Raven Falcon Eagle Owl Trout
Salmon Pike Carp Lamb Ram Bull Horse Colt Storm Rain Snow Frost Mist Cloud Sun Moon Star Dawn Dusk Summer Winter Spring
Harvest Lantern Candle Bell Anchor Harbor River Lake Marsh Moor Hill Ridge Valley Forest Hollow Orchard Meadow Bridge
Mill Tower Gate Wall Church Temple Cross Crown Shield Spear Hammer Anvil Miner Fisher Hunter Shepherd Monk Baron
Duke Prince Giant Dragon""".split()
_SHIP_FIRST = """Proud Bold Brave Swift Gentle Quiet Silent Merry Happy Lucky Noble Loyal Honest Humble Patient Restless
Wandering Roaming Drifting Dancing Singing Laughing Smiling Sleeping Dreaming Waking Rising Falling Flying Gliding Racing
Chasing Hunting Waiting Watching Burning Glowing Shining Gleaming Sparkling Blazing Crimson Scarlet Amber Ivory Ebony
Azure Indigo Violet Emerald Ruby Sapphire Pearl Coral Jade Topaz Opal Bronze Brazen Gilded Painted Polished Velvet Silken
Woolen Wooden Thunder Lightning Tempest Gale Breeze Northern Southern Eastern Western Arctic Polar Tropic Distant Lonely
Hidden Secret Lost Forgotten Ancient Young Eldest First Second Third Final Eternal Endless Boundless Fearless Tireless
Dauntless Peerless Matchless Flawless Spotless Restful Joyful Hopeful Graceful Faithful Grateful Mighty Hardy Sturdy
Steady Ready Speedy Stormy Sunny Misty Foggy Windy Salty Sandy Rocky Shady Frosty Icy Wintry Starry Moonlit Sunlit
Candid Clever Crafty Cunning Daring Dashing Defiant Gallant Valiant Vigilant Radiant Brilliant Elegant Constant""".split()

_ONSETS = "Bal Bren Cal Dor Fal Gar Hal Jor Kel Lan Mar Nor Pel Ros Tor".split()
_SURNAME_ENDS = "berg dal din gren lund mann quist rick sen son stad strom ton vik wald".split()
_STEM_ENDS = "bury by combe den fold ham holm leigh mere more rop thorpe wick worth yard".split()
_FIRM_SECOND = """Alloys Appliances Armor Automobiles Bakeries Bearings Beverages Bindings Blankets Boilers Brands Breweries
Brothers Builders Cables Canneries Ceramics Chemicals Chimneys Circuits Coatings Company Components Concrete
Confections Constructions Containers Cooperage Crafts Cranes Cutlery Dairies Designs Devices Distillers Dynamics Dyes
Electric Enamels Engineering Enterprises Equipment Exports Fabrics Fashions Fasteners Fibers Fittings Foods Forges
Foundry Freight Furnishings Galleries Garments Gears Goods Group Guild Hardware Holdings Hosiery Household Imports
Industries Instruments International Ironworks Joinery Kilns Kitchens Laboratories Laminates Leatherware Lighting
Limited Linens Logistics Looms Lumber Machines Makers Manufacturing Masonry Materials Mechanics Media Metals Mills
Minerals Molds Motorworks Networks Nurseries Optics Outfitters Packaging Paints Papers Partners Pharmaceuticals
Pictures Pipeworks Plastics Plating Porcelain Power Precision Press Processing Products Provisions Publishing Quarries
Railways Refineries Research Resins Roofing Sawmills Sciences Services Shipyards Smelters Smithy Solutions Sons
Spinners Stores Studios Supplies Systems Tanneries Technics Textiles Tiles Timberworks Toolworks Trading Transport
Upholstery Varnishes Ventures Weavers Workshops Yarns""".split()
_FIRM_ENDS = "andi bex co dax efa fin go lux mix nex oro pax rix tex vo".split()
_HULL_ENDS = "ara eda ima ona una issa etta ella inda onia usta ambra endra irra otta".split()

CATEGORIES: dict[str, list[str]] = {
    "job": """baker barber butcher carpenter chemist clerk cook doctor farmer fisher gardener glazier hatter judge lawyer
    locksmith mason miller miner nurse painter pilot potter printer sailor singer tailor teacher weaver writer""".split(),
    "instrument": """banjo bassoon bugle cello clarinet cornet drum fiddle flute guitar harp horn lute lyre piano
    recorder saxophone tambourine trombone trumpet tuba viola violin zither""".split(),
    "pet": """beaver canary cat chicken dog donkey duck ferret finch frog gecko goat goose hamster lizard magpie mouse
    parrot pigeon pony rabbit sheep snake spider tortoise turkey""".split(),
    "craft": """baskets beer boots bricks buttons carpets cheese clocks cloth combs dolls gloves hats honey jewelry kites
    knives lace leather mirrors paper perfume pottery puppets rope soap toys violas wine wool""".split(),
    "product": """barrels bicycles bottles cameras chairs compasses dishes doors fans flutes furnaces heaters kettles
    ladders lamps locks motors needles pencils pipes pumps radios saws scales spoons stoves tents tractors trumpets
    wagons""".split(),
    "tree": """beech birch cedar chestnut cypress fir juniper larch laurel lime linden mahogany maple mulberry myrtle palm
    pine poplar redwood spruce sycamore walnut willow yew""".split(),
    "color": """beige black blue brown cream gold green grey khaki lavender lemon lilac maroon mauve navy peach pink
    purple red rose tan teal turquoise white yellow""".split(),
    "cargo": """bananas beans cement coal cocoa coffee corn cotton dates figs flour fruit furs glass grain hay herring hides
    jute linen marble nuts lentils pepper rice rubber rum silk spices steel sugar sulfur tea timber tin tobacco
    wax zinc""".split(),
}


@cache
def words(kind: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The two word lists whose product is every name of an identifying ``kind``."""

    def ends(onsets: list[str], tails: list[str]) -> tuple[str, ...]:
        return tuple(a + b for a, b in product(onsets, tails))

    lists = {
        "person": (tuple(_FEMALE + _MALE), ends(_ONSETS, _SURNAME_ENDS)),
        "town": (tuple(_TOWN_FIRST), ends(_ONSETS, _STEM_ENDS)),
        "company": (ends(_ONSETS, _FIRM_ENDS), tuple(_FIRM_SECOND)),
        "ship": (tuple(_SHIP_FIRST), ends(_ONSETS, _HULL_ENDS)),
    }
    return lists[kind]


IDENTIFYING: tuple[str, ...] = ("person", "town", "company", "ship")


def split_of(name: str) -> Split:
    """The one split a name belongs to: a hash of its letters, so no list of names has to be kept."""
    bucket = zlib.crc32(name.encode()) % 20
    for split, share in zip(SPLITS, _TWENTIETHS, strict=True):
        if bucket < share:
            return split
        bucket -= share
    raise AssertionError("the shares of the splits sum to 20")


def draw_name(rng: random.Random, kind: str, split: Split) -> str:
    """A uniformly drawn name of an identifying ``kind`` that belongs to ``split``."""
    first, second = words(kind)
    while True:
        name = f"{rng.choice(first)} {rng.choice(second)}"
        if split_of(name) == split:
            return name


def pronouns(kind: str, name: str) -> tuple[str, str, str]:
    """Subject, object and possessive pronoun of a name."""
    if kind != "person":
        return "it", "it", "its"
    return ("she", "her", "her") if name.split()[0] in _FEMALE else ("he", "him", "his")
