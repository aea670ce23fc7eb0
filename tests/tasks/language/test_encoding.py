"""Chat templates, and prompts that are too long: refused or dropped and counted, never cut."""

from __future__ import annotations

import pytest

from rheostat.errors import RheostatError
from rheostat.tasks.language import ChainSum, FilePrompts, Prompt, PromptEncoder, character_tokenizer, encode_prompt

TEMPLATE = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ opening or '[assistant]' }}{% endif %}"
)


@pytest.fixture
def chatty():
    tokenizer = character_tokenizer("abcdefghijklmnopqrstuvwxyz[] !")
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_text_is_encoded_as_it_is(chatty):
    assert chatty.decode(encode_prompt(Prompt("hello there"), chatty)) == "hello there"


def test_chat_goes_through_the_template_with_the_opening_of_the_answer(chatty):
    chat = Prompt([{"role": "system", "content": "be kind"}, {"role": "user", "content": "hi"}])
    assert chatty.decode(encode_prompt(chat, chatty)) == "[system]be kind[user]hi[assistant]"
    assert chatty.decode(encode_prompt(chat, chatty, {"opening": "!"})) == "[system]be kind[user]hi!"


def test_what_cannot_be_encoded(chatty):
    with pytest.raises(RheostatError, match="no chat template"):
        encode_prompt(Prompt([{"role": "user", "content": "hi"}]), character_tokenizer())
    with pytest.raises(RheostatError, match="cannot encode the prompt 'HELLO'"):
        encode_prompt(Prompt("HELLO"), chatty)
    chatty.chat_template = "{{ '' }}"
    with pytest.raises(RheostatError, match="has no tokens"):
        encode_prompt(Prompt([{"role": "user", "content": "hi"}]), chatty)


def test_a_prompt_that_is_too_long_is_an_error_by_default(chatty):
    encoder = PromptEncoder(chatty, 5)
    assert len(encoder.encode(Prompt("abcde")) or []) == 5
    with pytest.raises(RheostatError, match=r"'abcdef' .* has 6 tokens, more than the limit of 5"):
        encoder.encode(Prompt("abcdef"))


def test_or_dropped_and_counted(chatty):
    task = FilePrompts([{"prompt": "ab" * i} for i in range(1, 9)], validation_share=0)
    encoder = PromptEncoder(chatty, 8, on_long="drop")
    pairs = encoder.take(task.prompts(), 8)
    assert len(pairs) == 8 and all(len(ids) == len(prompt.content) <= 8 for prompt, ids in pairs)
    assert encoder.dropped > 0
    again = PromptEncoder(chatty, 8, on_long="drop")
    again.load_state_dict(encoder.state_dict())
    assert again.dropped == encoder.dropped


def test_dropping_everything_is_told_not_waited_for(chatty):
    task = FilePrompts([{"prompt": "long prompt"}], validation_share=0)
    with pytest.raises(RheostatError, match="in a row were longer than 3 tokens"):
        PromptEncoder(chatty, 3, on_long="drop").take(task.prompts(), 2)


def test_taking_with_drops_can_be_resumed():
    world = ChainSum()
    encoder = PromptEncoder(world.tokenizer(), 8, on_long="drop")
    stream = world.prompts()
    encoder.take(stream, 10)
    state = stream.state_dict()
    rest = [prompt.key for prompt, _ in encoder.take(stream, 10)]
    stream.load_state_dict(state)
    assert [prompt.key for prompt, _ in encoder.take(stream, 10)] == rest


@pytest.mark.parametrize(("limit", "on_long"), [(0, "error"), (5, "cut")])
def test_impossible_choices(chatty, limit, on_long):
    with pytest.raises(RheostatError):
        PromptEncoder(chatty, limit, on_long)


@pytest.mark.parametrize("symbols", ["", "aa"])
def test_impossible_vocabularies(symbols):
    with pytest.raises(RheostatError, match="different characters"):
        character_tokenizer(symbols)


def test_the_tokenizer_survives_saving(tmp_path, chatty):
    from transformers import AutoTokenizer

    chatty.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    ids = loaded("ab [cd]")["input_ids"]
    assert loaded.decode(ids) == "ab [cd]" and ids == chatty("ab [cd]")["input_ids"]
    assert loaded.padding_side == "left" and loaded.pad_token_id == 0 and loaded.eos_token_id == 2
