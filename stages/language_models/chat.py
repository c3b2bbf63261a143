"""A chat as the model's own template writes it, the same on every day and for every model.

Templates differ in what they do beside writing turns: some ask for today's date, some refuse a system turn, some open
a part to think in. Here the date is fixed, the rule then stands in the first user turn, and thinking is off.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from stages.language_models.base import FIXED, Message

DATE = datetime.strptime(FIXED["date_string"], "%d %b %Y")
"""What a template that asks for today gets."""

_CAPTION = "\ue000"
"""Stands for the caption while the text around it is found out: of Unicode's private use, so in no text."""


_BETWEEN = "<|endoftext|>"
"""Stands between documents in the training texts of models without a first token of their own, under this name."""

_Render = Callable[[Sequence[Message]], str]


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


def text_start(tokenizer: Any) -> int:
    """Id of the token that a text outside any chat begins with.

    The model's first token; where there is none, or it opens the turns of chats, so that a role is expected next, what
    stands between documents; else its last.
    """
    opens_turns = bool(tokenizer.bos_token) and tokenizer.bos_token in str(tokenizer.chat_template or "")
    if (opens_turns or not tokenizer.bos_token) and _BETWEEN in special_tokens(tokenizer):
        return int(tokenizer.convert_tokens_to_ids(_BETWEEN))
    return int(tokenizer.bos_token_id if tokenizer.bos_token else tokenizer.eos_token_id)


def encode(
    tokenizer: Any, prefix: Sequence[Message], chats: Sequence[Sequence[Message]], arguments: Mapping[str, Any]
) -> list[list[int]]:
    """Token ids of whole chats.

    Most chats are the prefix and a caption. What stands before that is rendered once, and tokenised once up to its last
    special token, where no token can reach across. The first caption proves both, else each chat is done whole, as
    chats of further turns are.

    Args:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prefix: the turns they share.
        chats: the turns after it, the first of a user, the last too; N chats.
        arguments: of the chat template, over `FIXED`.

    Raises jinja2.TemplateError when the template refuses the chat, with a system turn and without.
    """

    if not chats:
        return []
    ids = partial(_ids, tokenizer)
    render = _renderer(tokenizer, prefix, {"strftime_now": DATE.strftime, **FIXED, **arguments})
    captions = [turns[0]["content"].strip() for turns in chats if len(turns) == 1]
    longer = iter(ids([render(turns) for turns in chats if len(turns) > 1]))
    alone = iter(_encode_captions(tokenizer, render, captions))
    return [next(alone if len(turns) == 1 else longer) for turns in chats]


def _ids(tokenizer: Any, texts: list[str]) -> list[list[int]]:
    return list(tokenizer(texts, add_special_tokens=False)["input_ids"]) if texts else []


def _encode_captions(tokenizer: Any, render: _Render, captions: list[str]) -> list[list[int]]:
    if not captions:
        return []
    ids = partial(_ids, tokenizer)
    head, *tail = render(_user(_CAPTION)).split(_CAPTION)
    whole = render(_user(captions[0]))
    if len(tail) == 1 and whole == head + captions[0] + tail[0]:
        cut = max(0, *(head.rfind(token) for token in special_tokens(tokenizer)))
        shared = ids([head[:cut]])[0] if cut else []
        found = [shared + own for own in ids([head[cut:] + caption + tail[0] for caption in captions])]
        if found[0] == ids([whole])[0]:
            return found
    return ids([render(_user(caption)) for caption in captions])


def _user(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


def _renderer(tokenizer: Any, prefix: Sequence[Message], arguments: Mapping[str, Any]) -> _Render:
    """turns -> the chat as text; decides once whether the template takes the system turn."""
    from jinja2 import TemplateError

    def render(turns: Sequence[Message], *, folded: bool) -> str:
        chat = [*prefix, *({**turn, "content": turn["content"].strip()} for turn in turns)]
        chat = without_system(chat) if folded else chat
        return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True, **arguments))

    try:
        told = not prefix or prefix[0]["content"] in render(_user(_CAPTION), folded=False)  # some drop it silently
    except TemplateError:
        told = False
    return partial(render, folded=not told)
