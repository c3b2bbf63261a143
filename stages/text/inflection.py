"""English inflection by rule, each with a table of its exceptions: base form, plural, stem of a verb.

TextBlob, which tags our words, ships `singularize` and `pluralize`, but they are made for nouns alone and err too
often to decide about captions: of 1,307 words in s among the captions, prompts and benchmarks at hand `singularize`
changes 152 otherwise ("glass" -> "glas", "bus" -> "bu", "has" -> "ha"), of the 852 words of the lexicon `pluralize`
44 ("cow" -> "kine", "piano" -> "pianoes").
"""

from functools import lru_cache

_BASES = {
    "men": "man", "women": "woman", "children": "child", "feet": "foot", "teeth": "tooth", "mice": "mouse",
    "geese": "goose", "oxen": "ox", "knives": "knife", "leaves": "leaf", "wolves": "wolf", "shelves": "shelf",
    "loaves": "loaf", "calves": "calf", "halves": "half", "scarves": "scarf", "lives": "life", "wives": "wife",
    "policemen": "policeman", "firemen": "fireman", "fishermen": "fisherman", "snowmen": "snowman", "an": "a",
    "buses": "bus", "glasses": "glasses", "pants": "pants", "jeans": "jeans", "shorts": "shorts",
    "potatoes": "potato", "tomatoes": "tomato", "goes": "go", "does": "do", "has": "have", "tennis": "tennis",
    "canvas": "canvas", "christmas": "christmas", "movies": "movie", "cookies": "cookie", "always": "always",
    "iris": "iris", "axes": "axe", "is": "be", "are": "be", "was": "be", "were": "be", "trousers": "trousers",
    "sunglasses": "sunglasses", "species": "species", "series": "series", "lens": "lens",
}  # fmt: skip
_PLURALS = {
    "child": "children", "person": "people", "foot": "feet", "goose": "geese", "mouse": "mice", "wolf": "wolves",
    "knife": "knives", "shelf": "shelves", "sheep": "sheep", "deer": "deer", "potato": "potatoes",
    "tomato": "tomatoes",
}  # fmt: skip
_PARTICIPLES = {
    "fed": "feed", "held": "hold", "thrown": "throw", "caught": "catch", "taken": "take", "ridden": "ride",
    "driven": "drive", "eaten": "eat", "drawn": "draw", "led": "lead", "hung": "hang", "sat": "sit", "laid": "lie",
    "lying": "lie", "written": "write", "bitten": "bite", "cut": "cut", "built": "build", "made": "make",
    "swept": "sweep", "bought": "buy", "sold": "sell", "given": "give", "hidden": "hide", "broken": "break",
    "blown": "blow", "flown": "fly", "shot": "shoot", "hit": "hit", "left": "leave", "lit": "light", "told": "tell",
}  # fmt: skip


@lru_cache(maxsize=65536)
def lemma(word: str) -> str:
    """Base form of a lower-case word: "boxes" -> "box", "women" -> "woman", "rides" -> "ride"."""
    word = word.removesuffix("'s").removesuffix("’s").rstrip("'’")
    if word in _BASES:
        return _BASES[word]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses", "zes")):
        return word[:-2]
    if word.endswith("s") and len(word) > 3 and not word.endswith(("ss", "us")):
        return word[:-1]
    return word


def plural(noun: str) -> str:
    """Plural of a lower-case noun: "box" -> "boxes", "woman" -> "women", "city" -> "cities"."""
    if noun.endswith(("s", "x", "ch", "sh")):
        return noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    if noun.endswith("man"):
        return noun[:-3] + "men"
    return _PLURALS.get(noun, noun + "s")


def third_person(verb: str) -> str:
    """Form of a lower-case verb after "he": "watch" -> "watches", "carry" -> "carries", "have" -> "has"."""
    irregular = {"be": "is", "are": "is", "were": "was", "have": "has", "do": "does", "go": "goes"}
    if known := irregular.get(verb):
        return known
    if verb.endswith(("s", "x", "z", "ch", "sh")):
        return verb + "es"
    return verb[:-1] + "ies" if verb.endswith("y") and verb[-2:-1] not in "aeiou" else verb + "s"


def without_third_person(verb: str) -> str | None:
    """Form of a lower-case verb after "they": "watches" -> "watch", "is" -> "are"; None when it is not sure."""
    irregular = {"is": "are", "was": "were", "has": "have", "does": "do"}
    if known := irregular.get(verb):
        return known
    forms = (verb[:-3] + "y", verb[:-2], verb[:-1])
    return next((form for form in forms if len(form) > 1 and third_person(form) == verb), None)


@lru_cache(maxsize=65536)
def verb_stem(word: str) -> str:
    """Base form of a lower-case word without a verb's ending: chases, chased, chasing -> chas; held -> hold."""
    if known := _PARTICIPLES.get(word):
        return known.removesuffix("e") if len(known) > 3 else known
    base = lemma(word)
    for ending in ("ing", "ed", "e"):
        if base.endswith(ending) and len(base) > len(ending) + 2:
            found = base.removesuffix(ending)
            doubled = ending != "e" and found[-1] == found[-2] and found[-1] not in "sl"
            return found[:-1] if doubled else found[:-1] + "y" if found[-1] == "i" else found
    return base
