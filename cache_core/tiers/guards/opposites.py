"""Guard of opposites: groups of words of which none may replace another."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from importlib.resources import files
from typing import NamedTuple

from cache_core.tiers.guards.words import FUNCTION, Token, stem

_Side = tuple[object, int]
"""A group, and a side of it."""


def _grouped(groups: str) -> dict[str, tuple[_Side, ...]]:
    """Return the sides of each word and of its stem."""
    sides: dict[str, tuple[_Side, ...]] = {}
    for group in groups.strip().splitlines():
        for place, words in enumerate(group.split(":")):
            forms = {form for word in words.split() for form in (word, stem(word))}
            for form in forms:
                sides[form] = tuple({*sides.get(form, ()), (group, place)})
    return sides


_GROUPS = """
before prior : after following
over above exceeding : under below beneath
with : without lacking
inside within indoors : outside outdoors
into onto : out
up upward upwards : down downward downwards
on : off
for : against
if : unless
until : while
until till : since
until till by : after
including include incl inc : excluding except exclude excl ex
always : never
always : ever sometimes occasionally
all every each both : some any either one
must : may might can
more : less fewer : same equal equally
most : least fewest
many much plenty lots : a-few a-little several : few little
maximum max highest : minimum min lowest
high higher : low lower
upper : lower
top : bottom
left : right
front : rear back behind
inner interior internal : outer exterior external
first initial : last final
early earlier earliest soon sooner soonest : late later latest
new newer newest : old older oldest eldest
young younger youngest : old older oldest eldest
large larger largest big bigger biggest : small smaller smallest
long longer longest : short shorter shortest
fast faster fastest : slow slower slowest
hot hotter hottest warm warmer warmest : cold colder coldest cool cooler coolest
full : half part empty
single : double triple
double : triple
advance : arrears
ground : top upper
north : south : east : west : northeast : northwest : southeast : southwest
northern : southern : eastern : western
incoming inbound : outgoing outbound
arrive arrival arrivals : depart departure departures
import : export
upload : download
input : output
enable enabled activate : disable disabled deactivate
increase raise : decrease reduce
increment : decrement
add : remove
insert : delete
open opened opening : close closed closing
start begin : stop end finish
buy purchase : sell
lend : borrow
give : take
send sent : receive received
push : pull
accept accepted approve approved : decline declined reject rejected refuse refused
allow allowed permit permitted : forbid forbidden prohibit prohibited ban banned block blocked
require required mandatory obligatory compulsory obliged : optional voluntary : allowed permitted
lock : unlock
connect : disconnect
encrypt : decrypt
encode : decode
compress : decompress
attach : detach
win won gain gained : lose lost
rise rising rose : fall falling fell
remember remembered : forget forgot forgotten
day daytime : night nighttime
arrive arrived : leave left
pass passed : fail failed
debit debited : credit credited
deposit : withdraw
working works : broken
fix fixed : cause caused break broke
contain contains : free
male : female
public : private
positive : negative
safe : dangerous unsafe
cheap cheaper cheapest : expensive pricey
same : different next
easy easily : hard hardly difficult
present : absent
online : offline
horizontal horizontally : vertical vertically
ascending : descending
clockwise : anticlockwise counterclockwise
ancestor : descendant
he him his himself : she her hers herself
man men : woman women : boy boys : girl girls
husband : wife
father dad : mother mum mom : son : daughter : brother : sister
uncle : aunt : nephew : niece : cousin
parent : child children kid
adult : child children kid infant baby babies : senior
benefit advantage pro : drawback disadvantage downside con
pause paused : resume resumed continue continued
home : abroad
gross : net
average mean : median : total sum : minimum min : maximum max
width wide : height high tall : length long : depth deep : weight heavy : thickness thick
radius : diameter : circumference perimeter
area : volume
row : column
latitude : longitude
numerator : denominator
principal : interest
retail : wholesale
turnover revenue : profit
red : blue : green : yellow : black : white : brown : orange : pink : purple : grey gray
true : false
even : odd
right correct : wrong incorrect
good better best : bad worse worst
strong stronger strongest : weak weaker weakest
deep deeper deepest : shallow
wide wider widest broad : narrow narrower narrowest
thick thicker : thin thinner
heavy heavier heaviest : light lighter lightest
tall taller tallest : short shorter shortest
near nearer nearest : far farther farthest
rich : poor
dry : wet
raw : cooked
fresh : stale
clean : dirty
quiet silent : loud noisy
tight : loose
alive : dead
married : divorced single
guilty : innocent
visible : hidden
show shown : hide hidden
succeed succeeds succeeded success : fail fails failed failure
confirm confirmed : deny denied
grant granted approve approved allow allowed : deny denied
agree agreed : refuse refused
join joined : leave left
enter : exit leave
load : unload
save : spend
profit gain : loss
income : expense
asset : liability
debtor borrower : creditor lender
buyer : seller
sender : recipient receiver
employer : employee
landlord : tenant
plaintiff : defendant
host : guest
client : server
primary : secondary
major : minor
majority : minority
temporary : permanent
partial partially : full complete fully completely
automatic automatically : manual manually
domestic national : international foreign
ahead before : behind
forward forwards : backward backwards back
"""
_QUESTIONS = """
when : where : who whom who-did who-verb : why : how-often : how-far : how-old : how-long how-soon
who-did whom : who-verb
how-often : how-far : how-old : how-tall how-high : how-long how-soon how-fast how-quickly
"""
"""Question words of which none asks for what another does."""

_DID = frozenset(("do", "does", "did"))

_ASKED = frozenset("often far old tall high long soon fast quickly".split())
"""Words that make a question of their own of "how"."""


@cache
def _sides() -> dict[str, tuple[_Side, ...]]:
    """Return the sides of each word: of the groups here, and of WordNet's antonyms."""
    listed = files("cache_core.tiers.guards").joinpath("vocabulary/antonyms.txt")
    return _grouped(_GROUPS + _QUESTIONS + listed.read_text(encoding="ascii"))


def load() -> None:
    """Read the list of antonyms now, so that no lookup waits for it."""
    _sides()


_PARTICLES = {"in": 0, "out": 1}
"""Prepositions that are opposites only after the same word: "log in"."""

_OWNERS = {"my": 0, "your": 1}
"""Owners that are opposites only of the same thing, and where the same person asks: "you" may mean
anybody, as in "how do you cancel your order".
"""
_ASKERS = frozenset(("i", "we", "you"))

_SCARCE = frozenset(("few", "little"))
"""Words that mean hardly any; with an article, some."""

_RESTRICTING = frozenset(("only", "solely", "exclusively"))
"""Words that exclude everything else: one on one side only is as good as an opposite."""

_PREFIXES = """
in : out
in im : ex
in en as at pro : de
en : dis
pro : anti
pre ante : post
for fore front : back
hyper : hypo
macro : micro
inter : intra
super : sub
multi : single
uni : bi
endo : exo
hetero : homo
maxi : mini
"""
_ENDINGS = """
er or : ee
er or : ress
in : out
"""
_HEADS = _grouped(_GROUPS + _PREFIXES)
_TAILS = _grouped(_GROUPS + _ENDINGS)
_SHORTEST = 2
"""Fewest letters of a prefix or an ending."""
_LEAST = 3
"""Fewest letters of the word beside it."""
_BESIDE = 2
"""Content words on each side of a word by which its place in a longer text is known."""
_ENDS = frozenset(".!?;:")


class Opposites(NamedTuple):
    """Opposites in a text.

    Attributes:
        sides: Number of words on each side of each group.
        restricted: Number of words such as "only".
        words: All words.
    """

    sides: Counter[_Side]
    restricted: int
    words: frozenset[str]


def read(tokens: Sequence[Token]) -> Opposites:
    """Return the sides of groups that *tokens* are on."""
    found: Counter[_Side] = Counter()
    sides = _sides()
    askers = frozenset(token.text for token in tokens) & _ASKERS
    for place, token in enumerate(tokens):
        before = tokens[place - 1].text if place else ""
        if token.text in _PARTICLES and place:
            found[stem(before), _PARTICLES[token.text]] += 1
        if before in _OWNERS:
            found[(stem(token.text), askers), _OWNERS[before]] += 1
        if token.kind == "word":
            word = _grouped_word(tokens, place)
            for side in sides.get(word) or sides.get(stem(word), ()):
                found[side] += 1
    words = [token.text for token in tokens if token.kind == "word"]
    restricted = sum(
        word in _RESTRICTING and before != "not"
        for before, word in zip(["", *words], words, strict=False)
    )
    return Opposites(found, restricted, frozenset(words))


def _grouped_word(tokens: Sequence[Token], place: int) -> str:
    """Return the word at *place* as the groups have it: a-few, how-long, why for "how come".

    The subject and the object that a question asks for are who-verb and who-did: "who paid",
    "who did I pay".
    """
    word = tokens[place].text
    before = tokens[place - 1].text if place else ""
    after = tokens[place + 1].text if place + 1 < len(tokens) else ""
    if word == "who" and not place and after and after not in FUNCTION:
        return "who-verb"
    if word == "who" and after in _DID:
        return "who-did"
    if word in _SCARCE and before == "a":
        return f"a-{word}"
    if word == "how" and after == "come":
        return "why"
    return f"how-{after}" if word == "how" and after in _ASKED else word


def agree(asked: Opposites, stored: Opposites) -> bool:
    """Return whether no word of one text has its opposite in the other, in its place."""
    if asked.restricted != stored.restricted:
        return False
    if _contrary(asked.sides - stored.sides, stored.sides - asked.sides):
        return False
    ours, theirs = asked.words - stored.words, stored.words - asked.words
    return not _contrary(_compounds(ours), _compounds(theirs))


class Placed(NamedTuple):
    """A word of a group in a longer text.

    Attributes:
        side: Its side of the group.
        beside: Stems of the content words and numbers next to it in its clause.
    """

    side: _Side
    beside: frozenset[str]


def placed(tokens: Sequence[Token]) -> tuple[Placed, ...]:
    """Return the words of groups in *tokens*, each with what stands beside it."""
    sides, found = _sides(), list[Placed]()
    for place, token in enumerate(tokens):
        if token.kind != "word":
            continue
        word = _grouped_word(tokens, place)
        own = sides.get(word) or sides.get(stem(word), ())
        if own:
            back, ahead = reversed(tokens[:place]), tokens[place + 1 :]
            beside = frozenset({*_beside(back), *_beside(ahead)})
            found += [Placed(side, beside) for side in own]
    return tuple(found)


def _beside(tokens: Iterable[Token]) -> Iterator[str]:
    """Yield the stems of the first content words and numbers in a clause."""
    clause = itertools.takewhile(lambda token: token.text not in _ENDS, tokens)
    content = (
        stem(token.text)
        for token in clause
        if token.kind in {"word", "number"} and token.text not in FUNCTION
    )
    return itertools.islice(content, _BESIDE)


def in_place(ours: Iterable[Placed], theirs: Iterable[Placed]) -> bool:
    """Return whether a word of one text has its opposite in the other, beside the same word."""
    mine, yours = [*ours], [*theirs]
    here, there = (Counter(word.side for word in side) for side in (mine, yours))
    own, other = here - there, there - here
    return any(
        one.side[0] == two.side[0] and one.side[1] != two.side[1] and one.beside & two.beside
        for one in mine
        if one.side in own
        for two in yours
        if two.side in other
    )


def _contrary(ours: Iterable[_Side], theirs: Iterable[_Side]) -> bool:
    """Return whether *ours* and *theirs* have different sides of one group."""
    places: dict[object, set[int]] = {}
    for group, place in theirs:
        places.setdefault(group, set()).add(place)
    return any(places.get(group, set()) - {place} for group, place in ours)


def _compounds(words: Iterable[str]) -> Iterator[_Side]:
    """Yield the sides of the beginnings and endings of *words*, each with the rest of the word."""
    for form in {form for word in words for form in (word, stem(word))}:
        for cut in range(_SHORTEST, len(form) - _SHORTEST + 1):
            head, tail = form[:cut], form[cut:]
            if len(tail) >= _LEAST:
                for group, place in _HEADS.get(head, ()):
                    yield ("head", group, tail), place
            if len(head) >= _LEAST:
                for group, place in _TAILS.get(tail, ()):
                    yield ("tail", group, head), place
