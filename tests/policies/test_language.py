"""The language policy against the plain computation of its model, for several architectures."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rheostat.errors import RheostatError
from rheostat.policies.language import model as language
from rheostat.policies.language import packing
from rheostat.policies.language.matmul import usual_above, usual_below
from rheostat.policies.language.model import LanguagePolicy
from tests import tiny_language as tiny

KINDS = ("qwen3", "qwen2", "llama", "gemma2", "gpt2")
CPU_LIMIT = 1e-5


@pytest.mark.parametrize("kind", KINDS)
def test_scores_and_gradients_equal_the_plain_computation(kind: str) -> None:
    policy, plain = LanguagePolicy(tiny.model(kind)), tiny.model(kind).eval()
    assert (policy.decoder is not None) == (kind in ("qwen3", "qwen2", "llama"))
    action, attention, mask = tiny.rows()
    scores = policy.score(action, attention, mask, temperature=0.7, entropy=True)
    logp, entropy = tiny.naive_scores(plain, action, attention, mask, 0.7)
    assert scores.entropy is not None
    torch.testing.assert_close(scores.logp[mask], logp, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(scores.entropy[mask], entropy, rtol=1e-5, atol=2e-5)
    assert not scores.logp[~mask].any() and not scores.entropy[~mask].any()
    weights = torch.linspace(-1, 1, len(logp))
    ((scores.logp[mask] + 0.3 * scores.entropy[mask]) * weights).sum().backward()
    ((logp + 0.3 * entropy) * weights).sum().backward()
    expected = dict(plain.named_parameters())
    for name, parameter in policy.model.named_parameters():
        torch.testing.assert_close(parameter.grad, expected[name].grad, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_padding_anywhere_changes_nothing(kind: str) -> None:
    policy = LanguagePolicy(tiny.model(kind))
    action, attention, mask = tiny.rows()
    plain = policy.score(action, attention, mask).logp
    junk = torch.full((len(action), 3), tiny.EOS)
    nothing = torch.zeros(len(action), 3, dtype=torch.bool)
    wide = policy.score(
        torch.cat([junk, torch.where(attention, action, tiny.BOS), junk], 1),
        torch.cat([nothing, attention, nothing], 1),
        torch.cat([nothing, mask, nothing], 1),
    ).logp
    torch.testing.assert_close(wide[:, 3:-3], plain, rtol=0, atol=CPU_LIMIT)
    assert not wide[:, :3].any() and not wide[:, -3:].any()


@cache
def shared_policy() -> LanguagePolicy:
    return LanguagePolicy(tiny.model())


@given(st.permutations(range(9)), st.integers(1, 9))
def test_row_order_and_split_into_micro_batches_change_nothing(order: list[int], split: int) -> None:
    policy = shared_policy()
    action, attention, mask = tiny.rows()
    plain = policy.score(action, attention, mask).logp
    index = torch.tensor(order)
    parts = [policy.score(action[i], attention[i], mask[i]).logp for i in index.split(split)]
    torch.testing.assert_close(torch.cat(parts), plain[index], rtol=0, atol=CPU_LIMIT)


def test_sharing_prompts_and_recomputing_layers_change_nothing() -> None:
    action, attention, mask = tiny.rows()
    results = []
    for options in ({}, {"share": "nothing"}, {"recompute": True}):
        policy = LanguagePolicy(tiny.model(), **options)
        policy.score(action, attention, mask).logp.sum().backward()
        results.append([parameter.grad for parameter in policy.parameters()])
    for other in results[1:]:
        for ours, plain in zip(other, results[0], strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=2e-5)


def test_long_rows_go_to_the_fused_attention_and_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LanguagePolicy(tiny.model())
    action, attention, mask = tiny.rows()
    results = []
    for longest in (128, 12, 0):  # all, some and no rows short
        monkeypatch.setattr(packing, "LONGEST", longest)
        monkeypatch.setattr(packing, "ROWS_PER_BUCKET", 3)
        policy.zero_grad()
        policy.score(action, attention, mask).logp.sum().backward()
        results.append([parameter.grad.clone() for parameter in policy.parameters()])  # type: ignore[union-attr]
    for other in results[1:]:
        for ours, plain in zip(other, results[0], strict=True):
            torch.testing.assert_close(ours, plain, rtol=1e-4, atol=2e-5)


@pytest.mark.parametrize("kind", ["qwen3", "llama", "gpt2", "gemma2"])
def test_latents_are_what_layers_add_up_to(kind: str) -> None:
    """On packed tokens and by the model's own pass, of every layer but the last one as Hugging Face returns them."""
    policy = LanguagePolicy(tiny.model(kind, **({"n_layer": 3} if kind == "gpt2" else {"num_hidden_layers": 3})))
    action, attention, mask = tiny.rows()
    found = policy.latents(action, attention, mask, (0, 1, 2))
    assert found.shape == (int(mask.sum()), 3, 32) and not found.requires_grad
    expected = []
    for ids, real, chosen in zip(action, attention, mask, strict=True):
        states = policy.causal(input_ids=ids[real][None], use_cache=False, output_hidden_states=True).hidden_states
        expected.append(torch.stack([state[0][chosen[real]] for state in states[1:3]], 1))
    torch.testing.assert_close(found[:, :2], torch.cat(expected).detach(), rtol=0, atol=CPU_LIMIT)
    last = policy.hidden_states(action, attention, mask)
    norm = policy.causal.base_model.ln_f if kind == "gpt2" else policy.causal.base_model.norm
    torch.testing.assert_close(norm(found[:, 2]), last, rtol=0, atol=CPU_LIMIT)
    policy.decoder = None
    torch.testing.assert_close(policy.latents(action, attention, mask, (0, 2)), found[:, [0, 2]], rtol=0, atol=CPU_LIMIT)


def test_latents_of_many_tokens_are_read_in_slices_and_of_no_other_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LanguagePolicy(tiny.model())
    action, attention, mask = tiny.rows(groups=4)
    mask[3:6] = False
    whole = policy.latents(action, attention, mask, (1,))
    monkeypatch.setattr(language, "SCORED_AT_ONCE", 3 * action.shape[1])
    torch.testing.assert_close(policy.latents(action, attention, mask, (1,)), whole, rtol=0, atol=CPU_LIMIT)
    for layers, said in (((0, 2), "no layer 2: its 2 layers are 0 to 1"), ((), "latents of no layer")):
        with pytest.raises(RheostatError, match=said):
            policy.latents(action, attention, mask, layers)


def test_a_shared_prompt_is_computed_once() -> None:
    action, attention, mask = tiny.rows(groups=2, group_size=4)
    before = torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    shared, alone = packing.pack(action, attention, before), packing.pack(action, attention, before, share="nothing")
    prompts = (attention & ~mask).sum(1)
    every = int(prompts.sum() + mask.sum()) - len(action)  # the last token of a row predicts nothing
    once = every - int(prompts.sum() - prompts[::4].sum())
    assert (len(alone.ids), len(shared.ids)) == (usual_above(every), usual_above(once)) and once < every


@st.composite
def trees_of_rows(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]:
    """Rows with many common beginnings, padded on both sides, and the number of distinct beginnings up to what is needed of each."""
    count = draw(st.integers(1, 6))
    rows = draw(st.lists(st.lists(st.integers(0, 2), min_size=2, max_size=7), min_size=count, max_size=count))
    scored = [draw(st.integers(1, len(row) - 1)) for row in rows]  # the first scored token
    left = [draw(st.integers(0, 2)) for _ in rows]
    width = max(len(row) + pad for row, pad in zip(rows, left, strict=True)) + draw(st.integers(0, 2))
    action, attention = torch.full((count, width), 9), torch.zeros(count, width, dtype=torch.bool)
    mask = torch.zeros_like(attention)
    for index, (row, pad, first) in enumerate(zip(rows, left, scored, strict=True)):
        action[index, pad : pad + len(row)] = torch.tensor(row)
        attention[index, pad : pad + len(row)] = True
        mask[index, pad + first : pad + len(row)] = True
    return action, attention, mask, len({tuple(row[:end]) for row in rows for end in range(1, len(row))})


@given(trees_of_rows())
def test_a_tree_of_rows_costs_its_nodes_and_scores_as_its_rows_do(rows: tuple[torch.Tensor, torch.Tensor, torch.Tensor, int]) -> None:
    action, attention, mask, nodes = rows
    packed = packing.pack(action, attention, language.predicting(mask), share="beginnings")
    assert len(packed.scatter) == usual_above(nodes)
    results = []
    for share in ("nothing", "beginnings"):
        policy = shared_policy_with_values()
        policy.share = share  # type: ignore[assignment]
        policy.zero_grad()
        found = policy.score(action, attention, mask, entropy=True, value=True)
        assert found.entropy is not None and found.value is not None
        weights = torch.linspace(-1, 2, mask.numel()).view(mask.shape)  # no two rows weigh a common token alike
        ((found.logp + 0.1 * found.entropy + found.value) * weights).sum().backward()
        results.append([found.logp, found.entropy, found.value, *(parameter.grad.clone() for parameter in policy.parameters())])  # type: ignore[union-attr]
    for ours, plain in zip(results[1], results[0], strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=2e-5)


@cache
def shared_policy_with_values() -> LanguagePolicy:
    return LanguagePolicy(tiny.model(), value_head=True)


def test_sizes_are_rounded_so_that_they_repeat() -> None:
    """Matrix products meet at most seventeen sizes between a power of two and the next, and at most a sixteenth is wasted."""
    for low in (16, 256, 4096):
        sizes = {usual_above(count) for count in range(low, 2 * low)}
        assert len(sizes) <= 17 and all(usual_below(size) == usual_above(size) == size for size in sizes)
    assert all(usual_below(n) <= n <= usual_above(n) <= n + max(16, n / 16 + 1) for n in range(1, 5000))


def test_masks_with_gaps_score_only_what_they_mark() -> None:
    policy = LanguagePolicy(tiny.model())
    action, attention, mask = tiny.rows(completion=12)
    holes = mask & (torch.arange(mask.shape[1]) % 3 != 0)  # tool output inside a completion
    holes[0] = False  # and a row nothing is asked of
    full = policy.score(action, attention, mask).logp
    torch.testing.assert_close(policy.score(action, attention, holes).logp, torch.where(holes, full, 0.0), rtol=0, atol=CPU_LIMIT)


def test_many_tokens_without_a_gradient_go_through_in_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    policy = LanguagePolicy(tiny.model(), value_head=True)
    action, attention, mask = tiny.rows(groups=4)
    mask[5:8] = False
    whole = policy.score(action, attention, mask, entropy=True, value=True)
    monkeypatch.setattr(language, "SCORED_AT_ONCE", 3 * action.shape[1])
    with torch.no_grad():
        sliced = policy.score(action, attention, mask, entropy=True, value=True)
    for name in ("logp", "entropy", "value", "next_value"):
        torch.testing.assert_close(getattr(sliced, name), getattr(whole, name).detach(), rtol=0, atol=CPU_LIMIT)


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_values_are_those_of_the_states_before_and_after_each_token(kind: str) -> None:
    policy = LanguagePolicy(tiny.model(kind), value_head=True)
    assert policy.value_head is not None
    action, attention, mask = tiny.rows()
    zero = policy.score(action, attention, mask, value=True)
    assert zero.value is not None and not zero.value.any()  # a new critic says 0
    with torch.no_grad():
        policy.value_head.linear.weight.copy_(torch.linspace(-1, 1, 32)[None])
        policy.value_head.linear.bias.fill_(0.3)
    scores = policy.score(action, attention, mask, value=True)
    assert scores.value is not None and scores.next_value is not None
    for row in range(len(action)):
        real = attention[row]
        states = policy.causal.base_model(input_ids=action[row][real][None], use_cache=False).last_hidden_state[0]
        values = policy.value_head(states)
        places = mask[row][real].nonzero()[:, 0]
        torch.testing.assert_close(scores.value[row][mask[row]], values[places - 1], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(scores.next_value[row][mask[row]], values[places], rtol=1e-4, atol=1e-5)
    scores.value.sum().backward()
    assert policy.value_head.linear.weight.grad is not None and policy.causal.get_input_embeddings().weight.grad is not None


def test_padding_equal_to_the_end_token_is_told_from_it_by_position() -> None:
    policy = LanguagePolicy(tiny.model(), tiny.tokenizer(pad_token="<eos>"))
    assert policy.pad_id == tiny.EOS
    action, attention, mask = tiny.rows()
    last = mask & ~torch.cat([mask[:, 1:], torch.zeros_like(mask[:, :1])], 1)
    action = torch.where(last | ~attention, tiny.EOS, action)  # every completion ends with the token that also pads
    scores = policy.score(action, attention, mask)
    logp, _ = tiny.naive_scores(policy.model, action, attention, mask)
    torch.testing.assert_close(scores.logp[mask], logp, rtol=1e-5, atol=2e-5)
    assert (scores.logp[last] < 0).all()


def test_dropout_is_off_even_in_training_mode() -> None:
    policy = LanguagePolicy(tiny.model("gpt2", resid_pdrop=0.5, attn_pdrop=0.5)).train()
    action, attention, mask = tiny.rows()
    assert torch.equal(policy.score(action, attention, mask).logp, policy.score(action, attention, mask).logp)


def test_a_frozen_reference_stays_where_it_was() -> None:
    policy = LanguagePolicy(tiny.model())
    action, attention, mask = tiny.rows()
    reference = policy.reference()
    before = policy.score(action, attention, mask).logp.detach()
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(1.1)
    assert not reference.score(action, attention, mask).logp.requires_grad
    torch.testing.assert_close(reference.score(action, attention, mask).logp, before)
    other = LanguagePolicy(tiny.model(seed=1)).reference()
    other.load_state_dict(reference.state_dict())
    torch.testing.assert_close(other.score(action, attention, mask).logp, before)


def adapters() -> object:
    peft = pytest.importorskip("peft")
    return peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"], init_lora_weights=False)


def test_with_adapters_the_reference_is_the_policy_as_it_is_now() -> None:
    plain = LanguagePolicy(tiny.model())
    policy = LanguagePolicy(tiny.model(), adapters=adapters())
    assert policy.decoder is not None and policy.adapted
    action, attention, mask = tiny.rows()
    base, now = (one.score(action, attention, mask).logp.detach() for one in (plain, policy))
    assert (now - base).abs().max() > 1e-3
    reference = policy.reference()
    assert set(reference.state_dict()) == {name for name, parameter in policy.model.named_parameters() if parameter.requires_grad}
    policy.score(action, attention, mask).logp.sum().backward()
    trained = {name for name, parameter in policy.model.named_parameters() if parameter.grad is not None}
    assert trained and all("lora" in name for name in trained)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            parameter.mul_(0.0 if "lora_B" in name else 1.0)  # as new adapters are: they add nothing
    torch.testing.assert_close(reference.score(action, attention, mask).logp, now)
    torch.testing.assert_close(policy.score(action, attention, mask).logp, base)
    fresh = policy.reference()
    assert fresh.state_dict() == {}  # the base model alone
    torch.testing.assert_close(fresh.score(action, attention, mask).logp, base)


def test_state_goes_round_and_dtype_and_device_are_explicit() -> None:
    policy, other = LanguagePolicy(tiny.model(), value_head=True), LanguagePolicy(tiny.model(seed=1), value_head=True)
    other.load_state_dict(policy.state_dict())
    action, attention, mask = tiny.rows()
    assert torch.equal(other.score(action, attention, mask).logp, policy.score(action, attention, mask).logp)
    low = LanguagePolicy(tiny.model(), dtype="bfloat16", device="cpu")
    assert low.dtype == torch.bfloat16 and low.decoder is not None
    scores = low.score(action, attention, mask)
    assert scores.logp.dtype == torch.float32
    assert (scores.logp - policy.score(action, attention, mask).logp).abs().max() < 0.5


@pytest.mark.parametrize("kind", ["qwen3", "gpt2"])
def test_a_saved_policy_is_an_ordinary_folder(kind: str, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    policy = LanguagePolicy(tiny.model(kind), tiny.tokenizer(), value_head=True)
    assert policy.value_head is not None
    with torch.no_grad():
        policy.value_head.linear.weight.fill_(0.25)
    policy.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").is_file() and (tmp_path / "value_head.safetensors").is_file()
    plain = AutoModelForCausalLM.from_pretrained(tmp_path)
    for name, parameter in plain.named_parameters():
        assert torch.equal(parameter, policy.model.get_parameter(name))
    assert AutoTokenizer.from_pretrained(tmp_path)("3+4=")["input_ids"] == policy.tokenizer("3+4=")["input_ids"]
    loaded = LanguagePolicy.load(tmp_path)
    action, attention, mask = tiny.rows()
    ours, again = (p.score(action, attention, mask, value=True) for p in (policy, loaded))
    assert torch.equal(ours.logp, again.logp) and ours.value is not None and again.value is not None
    assert torch.equal(ours.value, again.value) and ours.value.any()


def test_saving_merges_adapters_and_leaves_the_policy_as_it_was(tmp_path: Path) -> None:
    policy = LanguagePolicy(tiny.model(), tiny.tokenizer(), adapters=adapters())
    action, attention, mask = tiny.rows()
    before = policy.score(action, attention, mask).logp
    policy.save_pretrained(tmp_path / "merged")
    policy.save_pretrained(tmp_path / "adapters", adapters_only=True)
    assert torch.equal(policy.score(action, attention, mask).logp, before)
    merged = LanguagePolicy.load(tmp_path / "merged")
    assert not merged.adapted
    torch.testing.assert_close(merged.score(action, attention, mask).logp, before, rtol=1e-4, atol=1e-4)
    assert (tmp_path / "adapters" / "adapter_model.safetensors").is_file()


def test_a_model_whose_packed_forward_pass_differs_uses_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from rheostat.policies.language import decoder

    monkeypatch.setattr(decoder, "supports", lambda model: True)
    strange = tiny.model("llama", hidden_act="gelu")
    with pytest.warns(UserWarning, match="does not reproduce this llama"):
        policy = LanguagePolicy(strange)
    assert policy.decoder is None
    action, attention, mask = tiny.rows()
    logp, _ = tiny.naive_scores(strange, action, attention, mask)
    torch.testing.assert_close(policy.score(action, attention, mask).logp[mask], logp, rtol=1e-5, atol=2e-5)


def test_bad_rows_are_refused_in_one_sentence() -> None:
    policy = LanguagePolicy(tiny.model())
    action, attention, mask = tiny.rows()
    with pytest.raises(RheostatError, match="one shape"):
        policy.score(action, attention, mask[:, :-1])
    with pytest.raises(RheostatError, match="mask is empty"):
        policy.score(action, attention, torch.zeros_like(mask))
    with pytest.raises(RheostatError, match="every row needs a prompt"):
        policy.score(action, attention, torch.ones_like(mask))
    with pytest.raises(RheostatError, match="lies on padding"):
        policy.score(action, attention & (torch.arange(action.shape[1]) < 7), mask)
    broken = attention.clone()
    broken[int(mask.sum(1).argmax()), 7] = False
    with pytest.raises(RheostatError, match=r"gap inside a row|lies on padding"):
        policy.score(action, broken, mask & (torch.arange(action.shape[1]) > 8))
    with pytest.raises(RheostatError, match="no value head"):
        policy.score(action, attention, mask, value=True)


def test_models_tokenizers_and_devices_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="disagree about the vocabulary: the model has 8 token embeddings, the tokenizer 24"):
        LanguagePolicy(tiny.model(vocabulary=8), tiny.tokenizer())
    with pytest.raises(RheostatError, match="disagree about the vocabulary"):
        LanguagePolicy(tiny.model(vocabulary=4000), tiny.tokenizer())
    with pytest.raises(RheostatError, match=r"no end token.*set tokenizer\.eos_token"):
        LanguagePolicy(tiny.model(), tiny.tokenizer(eos_token=None))
    assert LanguagePolicy(tiny.model(), tiny.tokenizer(pad_token=None)).pad_id == tiny.EOS  # masks go by position, never by token
    with pytest.raises(RheostatError, match="no causal language model"):
        LanguagePolicy(tiny.model().model)
    with pytest.raises(RheostatError, match="Unknown device 'tpu9'"):
        LanguagePolicy(tiny.model(), device="tpu9")
    with pytest.raises(RheostatError, match="Unknown dtype 'float8'"):
        LanguagePolicy(tiny.model(), dtype="float8")
    with pytest.raises(RheostatError, match="not a folder"):
        LanguagePolicy.load(tmp_path / "nowhere")
    with pytest.raises(RheostatError, match=r"no config\.json"):
        LanguagePolicy.load(tmp_path)
    with pytest.raises(RheostatError, match="recompute is for the Llama family"):
        LanguagePolicy(tiny.model("gpt2"), recompute=True)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the GPU")
def test_a_gpu_that_is_not_there_is_one_clear_sentence() -> None:
    with pytest.raises(RheostatError, match="'cuda' was asked for, but PyTorch sees no GPU"):
        LanguagePolicy(tiny.model(), device="cuda")
