"""A chat as the model's own template writes it, the same on every day and for every model.

Templates differ in what they do beside writing turns: some ask for today's date, some refuse a system turn, some open
a part to think in. Here the date is fixed, the rule then stands in the first user turn, and thinking is off.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from stages.language_models.base import FIXED, Message

DATE = datetime.strptime(FIXED["date_string"], "%d %b %Y")
"""What a template that asks for today gets."""

_CAPTION = "\ue000"
"""Stands for the caption while the text around it is found out: of Unicode's private use, so in no text."""


def without_system(chat: Sequence[Message]) -> list[Message]:
    """The chat with its system turn put before the first user turn's text, for templates that know no such role."""
    if not chat or chat[0]["role"] != "system":
        return list(chat)
    rule, first, *rest = chat
    return [{**first, "content": f"{rule['content']}\n\n{first['content']}"}, *rest]


def special_tokens(tokenizer: Any) -> list[str]:
    """The texts a tokenizer reads as a token that steers the model, in no order."""
    added = getattr(tokenizer, "added_tokens_decoder", {}).values()
    named = {token for token in tokenizer.all_special_tokens if token}
    return list(named | {token.content for token in added if token.special})


def encode(
    tokenizer: Any, prefix: Sequence[Message], captions: Sequence[str], arguments: Mapping[str, Any]
) -> list[list[int]]:
    """Token ids of the whole chat of every caption.

    What stands before the caption is rendered once, and tokenised once up to its last special token, where no token can
    reach across. The first caption proves both, else each chat is done whole.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prefix: the turns before the caption's.
        captions: N texts.
        arguments: of the chat template, over `FIXED`.

    Raises jinja2.TemplateError when the template refuses the chat, with a system turn and without.
    """

    def ids(texts: list[str]) -> list[list[int]]:
        return list(tokenizer(texts, add_special_tokens=False)["input_ids"])

    if not captions:
        return []
    captions = [caption.strip() for caption in captions]
    render = _renderer(tokenizer, prefix, {"strftime_now": DATE.strftime, **FIXED, **arguments})
    head, *tail = render(_CAPTION).split(_CAPTION)
    whole = render(captions[0])
    if len(tail) == 1 and whole == head + captions[0] + tail[0]:
        cut = max(0, *(head.rfind(token) for token in special_tokens(tokenizer)))
        shared = ids([head[:cut]])[0] if cut else []
        found = [shared + own for own in ids([head[cut:] + caption + tail[0] for caption in captions])]
        if found[0] == ids([whole])[0]:
            return found
    return ids([render(caption) for caption in captions])


def _renderer(tokenizer: Any, prefix: Sequence[Message], arguments: Mapping[str, Any]) -> Any:
    """caption -> the chat as text; decides once whether the template takes the system turn."""
    from jinja2 import TemplateError

    def render(caption: str, *, folded: bool) -> str:
        chat = [*prefix, {"role": "user", "content": caption}]
        chat = without_system(chat) if folded else chat
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **arguments))

    try:
        told = not prefix or prefix[0]["content"] in render(_CAPTION, folded=False)  # some leave it out without a word
    except TemplateError:
        told = False
    return partial(render, folded=not told)
