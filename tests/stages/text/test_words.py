import subprocess
import sys
from pathlib import Path

import pytest

from stages.text import words
from stages.text.words import is_known, lexicon, parse
from tests.paths import ROOT


def test_tokens_tags_and_base_forms() -> None:
    parsed = parse("Two dogs' red boxes, aren't 3.5 m away.")
    assert " ".join(word.text for word in parsed) == "Two dogs ' red boxes , aren't 3.5 m away ."
    assert [word.lemma for word in parsed[:5]] == ["two", "dog", "", "red", "box"]
    assert [word.tag for word in parsed[:5] if word.is_word] == ["CD", "NNS", "JJ", "NNS"]
    assert parse("") == ()


@pytest.mark.parametrize(
    ("old", "new", "stays"),
    [
        ("sofa", "couch", True),
        ("dog", "animal", True),
        ("person", "woman", True),
        ("dog", "cat", False),
        ("grass", "garden", True),
        ("field", "street", False),
    ],
)
def test_what_stays_true(old: str, new: str, stays: bool) -> None:
    assert lexicon().stays_true(old, new) is stays


def test_qualities_of_two_sorts_may_both_hold() -> None:
    pairs = [("large", "red"), ("blond", "little"), ("small", "tall"), ("dark", "blond"), ("large", "kitchen")]
    assert [lexicon().may_both_hold(*pair) for pair in pairs] == [True, True, False, False, False]


def test_siblings_are_of_one_kind_and_never_the_word_itself() -> None:
    near = lexicon().siblings("dog")
    assert {"cat", "horse"} <= near and not near & {"dog", "animal", "puppy"}


def test_known_words() -> None:
    assert all(map(is_known, ("dog", "dogs", "kitchen", "walking"))) and not is_known("qwrtz")


def test_the_tagger_s_identity_covers_version_and_lexicon(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    digests = [words.tagger_digest()]
    monkeypatch.setattr(words, "TAGGER_VERSION", words.TAGGER_VERSION + 1)
    digests.append(words.tagger_digest())
    other = tmp_path / "english.yaml"
    other.write_text(words.LEXICON.read_text() + "\n")
    monkeypatch.setattr(words, "LEXICON", other)
    digests.append(words.tagger_digest())
    assert len(set(digests)) == 3 and all(len(digest) == 16 for digest in digests)


def test_tagging_loads_no_more_of_textblob_than_its_tagger_and_leaves_the_package_whole() -> None:
    code = """
import sys
from stages.text.words import parse
print(parse("dogs")[0].tag, "nltk" in sys.modules, "scipy" in sys.modules)
import textblob
print(textblob.Word("dogs").singularize())
"""
    ran = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ran.stdout.split() == ["NNS", "False", "False", "dog"]


def test_a_wooden_boy_is_absurd_and_a_wooden_chair_is_not() -> None:
    known = lexicon()
    assert known.is_absurd("wooden", "boy") and known.is_absurd("young", "jacket")
    assert not known.is_absurd("wooden", "chair") and not known.is_absurd("young", "boy")
