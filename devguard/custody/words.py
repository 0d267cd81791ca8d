"""Fingerprints as words: for reading aloud across a room or a telephone.

One word stands for one byte, in order. The list is devguard's own: 256 common English words, no two of which begin
with the same three letters or are fewer than three edits apart, so that a word misheard is a word missing. Words say
exactly what the hexadecimal form says and replace no check.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from devguard.errors import Malformed

_LIST: Final = """
auburn avocado balcony bamboo bedrock bishop blossom bonfire breeze buffalo caravan century cherry chimney
cinema circus clarinet coffee compass cowboy cricket crystal cuckoo cupola curtain cushion cyclone dairy
daylight desert diamond doctor dolphin domino donkey drizzle drummer dynamo eclipse eggplant elephant
emerald empire engine envelope evening fabric feather fiddle firefly flannel forest fossil fountain freight
frozen fungus furnace galaxy garden gazelle geyser giraffe glacier gondola gorilla granite gypsum habitat
harvest hazelnut hedgehog helmet hickory horizon hospital hotel husky hydrant iceberg icicle igloo indigo
infant insect island ivory jaguar jasmine jelly jigsaw journal jubilee juniper justice kangaroo kayak
keyboard kingdom kitchen kiwi lantern lasso laundry lavender leopard lettuce library lobster lotus mailbox
mammoth mandolin mercury meteor midnight mitten mohair monsoon morning muffin mushroom napkin narwhal
nectar neptune nickel northern notebook nutmeg oatmeal octave opera orchid osprey outpost oxygen pagoda
parrot pelican picnic pilgrim pistachio plaza poncho poppy potato prairie pretzel prism pudding pumpkin
puppet puzzle pyramid quarry quotient raccoon radish raven reactor reindeer relic ribbon roller rosemary
rubber rugby rumble saffron sailor salmon sandal sapphire saxophone scarlet school scooter sequoia shampoo
shelter silver skeleton slipper snorkel soda soldier sonnet spaniel spider sponge squirrel stadium surgeon
swallow syrup tadpole tapestry teapot temple tennis terrace thimble thunder tobacco tofu topaz tornado
toucan treasure triangle trumpet tugboat tulip tundra turbine tuxedo twilight typhoon ultra umbrella
unicorn utensil vacuum vanilla vapor venison verdict vessel viking village vinegar violin visitor volcano
voyage vulture waffle walnut warrior water whisker widget window wombat woodland yacht yardstick yogurt
zebra zenith zephyr zigzag zinc zodiac zombie
"""
WORDS: Final = tuple(_LIST.split())
"""The word of each byte value, in alphabetical order."""
_VALUES: Final = {word: value for value, word in enumerate(WORDS)}
PER_ROW: Final = 8


def words(data: bytes) -> tuple[str, ...]:
    """One word for each byte."""
    return tuple(WORDS[byte] for byte in data)


def rows(data: bytes) -> tuple[str, ...]:
    """The words in numbered rows of eight, as they are read aloud."""
    spoken = words(data)
    starts = range(0, len(spoken), PER_ROW)
    return tuple(f"{at // PER_ROW + 1}: {' '.join(spoken[at : at + PER_ROW])}" for at in starts)


def from_words(spoken: Sequence[str]) -> bytes:
    """The bytes that words stand for, whatever their case; `Malformed("key.malformed")` for a word not in the list."""
    unknown = [word for word in spoken if word.lower() not in _VALUES]
    if unknown:
        raise Malformed("key.malformed", f"{unknown[0][:20]!r} is no word of a fingerprint")
    return bytes(_VALUES[word.lower()] for word in spoken)
