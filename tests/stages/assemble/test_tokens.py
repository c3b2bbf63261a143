import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.clip import tokenizer
from stages.assemble.tokens import Tokeniser

TEXT = st.one_of(
    st.none(),
    st.text(max_size=40),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60),
    st.lists(st.sampled_from(["a", "dog's", "CAN'T", "12345", "it,s", "&amp;", "<b>", "don't.", "é", " "])).map(
        " ".join
    ),
)

COLUMNS = Tokeniser(tokenizer("ViT-B-32"))


@given(texts=st.lists(TEXT, max_size=6))
@example(texts=["word " * 200, "1" * 100, "a " + "2" * 100, None, ""])
@example(texts=["&amp; lt;", "a\u2028b", "<start_of_text>", "A\tB"])
@settings(max_examples=150, deadline=None)
def test_a_column_gets_the_tokens_that_its_texts_get(texts: list[str | None]) -> None:
    tokenize = tokenizer("ViT-B-32")
    expected = [None if text is None else tokenize([text])[0] for text in texts]
    found = COLUMNS.column(pa.array(texts, pa.string()))
    found.validate(full=True)
    assert found.to_pylist() == expected


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string()])
def test_slices_count_from_their_own_start(kind: pa.DataType) -> None:
    texts = pa.array(["one", "two words", None, "three more words"], kind)
    assert COLUMNS.column(texts[1:]).to_pylist() == COLUMNS.column(texts).to_pylist()[1:]


def test_lists_of_texts_become_lists_of_their_tokens() -> None:
    tokenize = tokenizer("ViT-B-32")
    texts = [["a dog"], None, [], ["two words", "a “quoted” dog", "a dog"]]
    for start in range(len(texts)):
        found = COLUMNS.lists(pa.array(texts, pa.list_(pa.string()))[start:])
        found.validate(full=True)
        assert found.to_pylist() == [each and tokenize(each) for each in texts[start:]]
    assert COLUMNS.lists(pa.array([None], pa.list_(pa.string()))).to_pylist() == [None]


def test_a_padding_tokenizer_is_called_as_it_is() -> None:
    def padded(texts: list[str]) -> list[list[int]]:
        return [[ord(letter) for letter in text[:5]] + [0] * (5 - len(text)) for text in texts]

    found = Tokeniser(padded).column(pa.array(["ab", None, "c"]))
    assert found.to_pylist() == [[97, 98, 0, 0, 0], None, [99, 0, 0, 0, 0]]


def test_forgetting_words_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stages.assemble.tokens.WORDS", 2)
    few, tokenize = Tokeniser(tokenizer("ViT-B-32")), tokenizer("ViT-B-32")
    for texts in (["a b c d"], ["a b e"], ["e d c b a", "f"]):
        assert few.column(pa.array(texts)).to_pylist() == tokenize(texts)
