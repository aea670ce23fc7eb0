"""N2N: the laws of cutting, judgements that are made once, stages, resume under kill, transfer, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import rheostat
from rheostat.cli.completing import TASK, named
from rheostat.cli.entry import main
from rheostat.collect.compression.search import Judgement, Rollouts, Worth
from rheostat.errors import RheostatError
from rheostat.experiments.comparison import _read_by as read_by
from rheostat.objectives.compression_reward import constrained_reward, tolerance
from rheostat.policies.compression.controllers import RemovalController, ShrinkageController
from rheostat.reporting.architectures import architecture_section
from rheostat.tasks.compression.architecture import Architecture, Block, ConvNet, Impossible, Layer
from rheostat.tasks.compression.cutting import KEEP, LOOKUP, fault_of, removable, removed, shrinkable, shrunken
from rheostat.tasks.compression.image_teachers import TEACHERS, load_network, load_teacher
from rheostat.tasks.compression.images import IMAGE_TASKS, load_images
from rheostat.tasks.compression.lessons import Lessons, accuracy_of, new_network, train_network, train_until
from rheostat.tasks.compression.network_reading import read_network
from rheostat.training.run import Interrupted, Run
from tests import tiny_compression as tiny
from tests.crash import differences
from tests.training.test_run import StopAfter

# --- architectures ------------------------------------------------------------------------------------------------------------------------


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Chains and residual networks of images of 8 x 8 pixels."""
    items: list[Any] = [tiny.convolution(draw(st.integers(2, 20)))]
    width = items[0].size
    for _ in range(draw(st.integers(1, 4))):
        size, stride = draw(st.integers(2, 24)), draw(st.sampled_from([1, 1, 2]))
        match draw(st.sampled_from(["convolution", "block", "projected", "pool", "norm", "relu"])):
            case "convolution":
                kernel = draw(st.sampled_from([1, 3, 5]))
                items.append(Layer("Conv2d", kernel, stride, size, draw(st.integers(0, kernel // 2)), draw(st.booleans())))
                width = size
            case "block":
                items.append(Block((tiny.convolution(size), tiny.NORM, tiny.RELU, tiny.convolution(width))))
            case "projected":
                branch = (tiny.convolution(size, stride), tiny.RELU, tiny.convolution(size))
                items.append(Block(branch, (tiny.convolution(size, stride, 1),)))
                width = size
            case "pool":
                items.append(Layer("MaxPool2d", kernel=3, stride=2, padding=1))
            case other:
                items.append(tiny.NORM if other == "norm" else tiny.RELU)
    ending = draw(st.sampled_from([(Layer("AdaptiveAvgPool2d", kernel=1), Layer("Flatten")), (Layer("Flatten"),)]))
    found = Architecture((*items, *ending, Layer("Linear", size=3)), (1, 8, 8))
    try:
        assert found.parameters
    except Impossible:
        return tiny.CHAIN
    return found


def counted(network: nn.Module) -> int:
    return sum(each.numel() for each in network.parameters())


@given(architectures())
@settings(max_examples=25, deadline=None)
def test_weights_are_counted_as_they_are(whole: Architecture) -> None:
    network = ConvNet(whole)
    images = torch.zeros(2, *whole.image)
    assert counted(network) == whole.parameters
    assert network(images).shape == (2, whole.outputs)
    assert Architecture.from_json(whole.to_json()) == whole and Architecture.from_json(whole.to_json()).digest == whole.digest
    assert len(network.in_order()) == len(whole.places)


@given(architectures(), st.data())
@settings(max_examples=40, deadline=None)
def test_every_child_that_is_kept_is_smaller_and_runs(whole: Architecture, data: st.DataObject) -> None:
    """Sums of residual blocks fit, whatever is removed and shrunk, one after the other."""
    places = len(whole.places)
    child = removed(whole, data.draw(st.lists(st.integers(0, 1), min_size=places, max_size=places)))
    length = 5 * len(child.places)
    actions = data.draw(st.lists(st.integers(0, 10), min_size=length, max_size=length))
    for strided in (True, False):
        grandchild = shrunken(child, actions, strided=strided)
        for parent, made in ((whole, child), (child, grandchild), (whole, grandchild)):
            if fault_of(made, parent) is None:
                network = ConvNet(made)
                assert made.parameters < parent.parameters and counted(network) == made.parameters
                assert network(torch.zeros(2, *whole.image)).shape == (2, parent.outputs)


@given(architectures())
@settings(max_examples=25, deadline=None)
def test_actions_that_change_nothing_are_masked_and_others_may_change_something(whole: Architecture) -> None:
    """Keeping everything gives the same network, and so does every action at a masked decision."""
    places = len(whole.places)
    assert removed(whole, [KEEP] * places) == whole and shrunken(whole, [len(LOOKUP) - 1] * 5 * places) == whole
    free, numbers = removable(whole), [each for layer in shrinkable(whole) for each in layer]
    assert removed(whole, [int(each) for each in free]) == whole
    assert shrunken(whole, [10 if each else 0 for each in numbers]) == whole
    for index in range(places):
        if free[index]:
            assert removed(whole, [int(index != other) for other in range(places)]) != whole
    for index, each in enumerate(numbers):
        if each:
            assert shrunken(whole, [0 if index == other else 10 for other in range(5 * places)]) != whole


def test_what_stays_stays() -> None:
    """The first layer, the last one, linear layers, average pools, strided convolutions and shortcuts."""
    gone = removed(tiny.BLOCKS, [0] * len(tiny.BLOCKS.places))
    kinds = [place.layer.kind for place in gone.places]
    assert kinds == ["Conv2d", "Conv2d", "Conv2d", "AdaptiveAvgPool2d", "Flatten", "Linear"]
    assert [place.layer.stride for place in gone.places[:3]] == [1, 2, 2]  # the block without convolutions is gone
    assert [place.layer.size for place in gone.places[1:3]] == [20, 20]
    thin = shrunken(tiny.BLOCKS, [0] * 5 * len(tiny.BLOCKS.places))
    sizes = [place.layer.size for place in thin.places if place.layer.kind == "Conv2d"]
    assert sizes == [10, 10, 10, 10, 10, 10] and thin.outputs == 2
    fixed = shrunken(tiny.BLOCKS, [0] * 5 * len(tiny.BLOCKS.places), strided=False)
    assert [place.layer.size for place in fixed.places if place.layer.kind == "Conv2d"] == [10, 10, 10, 20, 20, 20]


@pytest.mark.parametrize(
    ("child", "sentence"),
    [
        (Architecture((Layer("Flatten"), Layer("Linear", size=2)), (1, 300, 300)), "reads 90,000 numbers, and 50,000 are the most"),
        (Architecture((tiny.convolution(8), Layer("Linear", size=2)), (1, 6, 6)), "reads an image that nothing flattened"),
        (Architecture((Layer("Conv2d", 7, 1, 4, 0), *tiny.END), (1, 6, 6)), "smaller than one pixel"),
        (Architecture((tiny.convolution(8), Block((tiny.convolution(4),)), *tiny.END), (1, 6, 6)), "a branch makes"),
        (Architecture((tiny.convolution(8), Layer("MaxPool2d", 2, 2, 0, 2), *tiny.END), (1, 6, 6)), "padded by more than half"),
        (Architecture((tiny.convolution(2),), (1, 6, 6)), "makes images"),
        (Architecture((*tiny.CHAIN.items[:-1], Layer("Linear", size=3)), (1, 6, 6)), "makes 3 numbers instead of 2"),
        (tiny.CHAIN, "not smaller"),
    ],
)
def test_a_child_that_is_worth_nothing_says_why(child: Architecture, sentence: str) -> None:
    assert sentence in str(fault_of(child, tiny.CHAIN))
    assert Judgement(child, 1.0, 1, "a fault").reward(Worth(), 1.0, 0) == -1.0


# --- controllers --------------------------------------------------------------------------------------------------------------------------


@given(st.lists(st.booleans(), min_size=11, max_size=11), st.integers(0, 99))
@settings(max_examples=10, deadline=None)
def test_masked_layers_have_no_gradient_and_no_action(free: list[bool], seed: int) -> None:
    layers = torch.tensor([place.layer.numbers for place in tiny.CHAIN.places], dtype=torch.float32)
    generator = torch.Generator().manual_seed(seed)
    for controller, per in ((RemovalController(), 1), (ShrinkageController(LOOKUP), 5)):
        mask = torch.tensor(free).repeat_interleave(per)
        action = controller.draw(layers, mask, 3, generator)
        assert bool((action[:, ~mask] == controller.kept).all())
        found = controller.score(layers, action, mask.expand(3, -1))
        assert not found.logp[:, ~mask].any() and not found.entropy[:, ~mask].any()
        other = torch.where(mask, action, 0)  # another action where none counts
        if isinstance(controller, RemovalController):
            torch.testing.assert_close(controller.score(layers, other, mask.expand(3, -1)).logp, found.logp)
        if not mask.any():
            found.logp.sum().backward()
            assert all(not each.grad.any() for each in controller.parameters() if each.grad is not None)


def test_a_tolerance_falls_once_and_stays_at_nothing() -> None:
    found = [tolerance(epoch) for epoch in range(-1, 40)]
    assert found[0] == found[1] == 1.0 and found == sorted(found, reverse=True) and set(found[16:]) == {0.0}
    assert constrained_reward(0.7, False, 0) == pytest.approx(0.7) and constrained_reward(0.7, False, 99) == -1.0
    assert constrained_reward(0.7, True, 99) == 0.7


# --- the search ---------------------------------------------------------------------------------------------------------------------------


def test_equal_architectures_share_one_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    search = tiny.built().context.search
    smaller = removed(tiny.CHAIN, [1, 1, 1, 0, 0, 1, 1, 1, 1, 1, 1])
    first, trained = search.judge(smaller), []
    monkeypatch.setattr(search, "trained", lambda child: trained.append(child))
    assert search.judge(Architecture.from_json(smaller.to_json())) == first and trained == [] and 0 < first.accuracy <= 1
    search.judged.clear()
    monkeypatch.undo()
    assert search.judge(smaller) == first  # what is stored is what would be found again


def test_a_judgement_reads_the_validation_images_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    one = tiny.built(steps=2)
    images = one.context.search.images
    monkeypatch.setattr(type(images), "__getattribute__", lambda self, name: _refused(self, name))
    one.turn()
    with pytest.raises(AssertionError, match="test images"):
        one.evaluate(1)


def _refused(images: Any, name: str) -> Any:
    assert name != "test", "test images are read"
    return object.__getattribute__(images, name)


def test_a_student_keeps_the_weights_of_its_best_pass() -> None:
    images, lessons = tiny.pictures(), Lessons(learning_rate=0.02, batch_size=30)
    how: Any = {"part": images.validation, "most": 12}
    accuracies = []
    for epochs in range(1, 13):
        network = train_network(new_network(tiny.CHAIN, 1), *images.train, lessons, 1, epochs=epochs)
        accuracies.append(accuracy_of(network, images.validation))
    for patience in (0, 2):
        network, passes = train_until(new_network(tiny.CHAIN, 1), *images.train, lessons, 1, patience=patience, **how)
        assert accuracy_of(network, images.validation) == max(accuracies[:passes]) > accuracies[0]
        assert passes == 12 if not patience else max(accuracies[:passes]) >= max(accuracies[passes - 2 : passes])
    assert passes < 12
    kept = train_network(new_network(tiny.CHAIN, 1), *images.train, lessons, 1, epochs=1 + accuracies.index(max(accuracies[:passes])))
    assert all(torch.equal(value, network.state_dict()[name]) for name, value in kept.state_dict().items())


def test_the_second_stage_cuts_what_the_first_has_found() -> None:
    one = tiny.built(steps=4, rollouts=4)
    rows = [one.turn() for _ in range(4)]
    search = one.context.search
    assert [row["stage"] for row in rows] == [0, 0, 1, 1] and one.steps == 4 and one.updates == 4
    assert search.parent.parameters < tiny.CHAIN.parameters and one.context.counts == {"removal": 2, "shrinkage": 2, "epochs": 4}
    assert rows[-1]["student_parameters"] == one.context.student.network.architecture.parameters
    assert rows[-1]["student_compression"] == tiny.CHAIN.parameters / rows[-1]["student_parameters"] > 1
    best = [row["best_network_reward"] for row in rows if row["stage"] == 0 and "best_network_reward" in row]
    assert best == sorted(best)


def test_a_constraint_is_kept_by_the_student() -> None:
    most = 2_500
    one = tiny.built(steps=6, rollouts=4, most_parameters=most, constraint_horizon=2)
    for _ in range(6):
        one.turn()
    assert one.context.student.network.architecture.parameters <= most


def test_chance_learns_nothing_and_counts_its_epochs() -> None:
    one = tiny.built(steps=2, drawn_by="chance")
    before = [each.clone() for model in one.context.models.values() for each in model.parameters]
    row = one.turn()
    one.turn()
    after = [each for model in one.context.models.values() for each in model.parameters]
    assert row["gradient_steps"] == 0 and one.updates == one.steps == 2
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(before, after, strict=True))


def test_removal_alone(tmp_path: Path) -> None:
    run = Run.create(tmp_path / "run", small(removal_share=1.0, steps=3)).train()
    assert {row["stage"] for row in run.metrics} == {0} and run.method.context.counts == {"removal": 3, "epochs": 3}


def small(**options: Any) -> Any:
    return rheostat.api.settings_for("n2n", "shapes", **(tiny.OPTIONS | {"teacher": tiny.teacher()} | options))


@pytest.mark.parametrize("at", [1, 2, 3])
def test_a_run_that_is_stopped_ends_where_one_does_that_is_not(tmp_path: Path, at: int) -> None:
    whole = Run.create(tmp_path / "whole", small()).train()
    halted = Run.create(tmp_path / "halted", small())
    with pytest.raises(Interrupted):
        halted.train(progress=StopAfter(at))
    Run.load(tmp_path / "halted").train()
    assert differences(tmp_path / "whole", tmp_path / "halted") == []
    mine, theirs = (load_network(tmp_path / name / "model") for name in ("whole", "halted"))
    assert mine.architecture == theirs.architecture == whole.method.policy.network.architecture
    assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in mine.state_dict().items())


def test_a_kill_in_the_middle_of_an_epoch_loses_that_epoch_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Run.create(tmp_path / "whole", small(checkpoint_every=1)).train()
    run = Run.create(tmp_path / "killed", small(checkpoint_every=1))
    judged, search = [], run.method.context.search
    original = search.judge

    def dies(child: Architecture) -> Judgement:
        judged.append(child)
        if len(judged) == 8:  # the second of three networks of the third epoch
            raise KeyboardInterrupt
        return original(child)

    monkeypatch.setattr(search, "judge", dies)
    with pytest.raises(KeyboardInterrupt):
        run.train()
    Run.load(tmp_path / "killed", to_continue=True).train()
    assert differences(tmp_path / "whole", tmp_path / "killed") == []


def test_controllers_of_another_run_are_taken_over(tmp_path: Path) -> None:
    Run.create(tmp_path / "before", small(steps=2)).train()
    options = tiny.OPTIONS | {"teacher": tiny.teacher(tiny.BLOCKS), "evaluation_episodes": 0, "progress": False}
    after = rheostat.train("n2n", "shapes", directory=tmp_path / "after", controller=tmp_path / "before", **options)
    assert "It began with the weights of" in after.summary["warnings"][0] and "removal, shrinkage" in after.summary["warnings"][0]
    one, other = Run.load(tmp_path / "before").method, Run.create(tmp_path / "new", small(from_run=str(tmp_path / "before"))).method
    for name in ("removal", "shrinkage"):
        mine, theirs = (each.context.models[name].network.state_dict() for each in (one, other))
        assert all(torch.equal(value, theirs[key]) for key, value in mine.items())


def test_the_report_draws_the_network_before_and_after(tmp_path: Path) -> None:
    run = rheostat.train("n2n", "shapes", directory=tmp_path / "run", teacher=tiny.teacher(tiny.BLOCKS), progress=False, **tiny.OPTIONS)
    page = (run.directory / "report.html").read_text()
    assert "The network before and after" in page and f"Teacher: {tiny.BLOCKS.parameters:,} weights in 15 layers" in page
    assert f"Student: {run.student.architecture.parameters:,} weights" in page and page.count("<svg role=") == 2
    assert "shortcut 4: Conv 1 x 1, 20, step 2" in page
    (run.directory / "model" / "teacher.json").write_text("{")
    section = architecture_section(run.directory)
    assert section is not None and "is damaged" in section.body
    assert architecture_section(tmp_path) is None


def test_what_a_comparison_and_a_shell_ask() -> None:
    """Options of experts go where they are read; names that are completed are those of the domain."""
    assert read_by("n2n", {"rollouts": 3, "experts": "rows.jsonl"}) == {"rollouts": 3, "experts": "rows.jsonl"}
    names = {domain: set(named(TASK, domain)) for domain in ("compression", "control", "language")}
    assert names["compression"] == set(IMAGE_TASKS) and not names["compression"] & (names["control"] | names["language"])


# --- users' networks and images -----------------------------------------------------------------------------------------------------------


def test_a_users_residual_network_is_read_as_it_computes() -> None:
    images = torch.randn(5, 1, 6, 6)
    own = tiny.Own().eval()
    found = read_network(own, images, "own")
    assert [type(item).__name__ for item in found.architecture.items] == ["Layer"] * 2 + ["Block", "Layer"] * 2 + ["Layer"] * 3
    torch.testing.assert_close(torch.log_softmax(found(images), 1), own(images), atol=1e-5, rtol=1e-5)
    assert counted(found) == counted(own) and own.training is False


FILE = """
import torch
from torch import nn
from tests.tiny_compression import Own, pictures

def trained():
    torch.manual_seed(0)
    net = Own()
    optimizer = torch.optim.Adam(net.parameters(), 0.01)
    images, labels = pictures().train
    for _ in range(25):
        optimizer.zero_grad()
        nn.functional.nll_loss(net(images), labels).backward()
        optimizer.step()
    return net

net = trained()

def fails():
    raise ValueError("no weights")

number = 3
"""


def test_a_network_and_images_of_files_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mine.py").write_text(FILE)
    images, labels = tiny.pictures().train
    np.savez(tmp_path / "mine.npz", x=images.numpy(), y=labels.numpy())
    words = ["train", "n2n", "--teacher", f"{tmp_path / 'mine.py'}:net", "--data", str(tmp_path / "mine.npz"), "--steps", "2"]
    words += ["--directory", str(tmp_path / "run"), "--rollouts", "2", "--child-epochs", "1", "--child-batch-size", "20"]
    words += ["--student-epochs", "2", "--child-learning-rate", "0.01"]
    main(words)
    said = capsys.readouterr().out
    assert "student compression" in said and "kept test accuracy" in said
    run = rheostat.load(tmp_path / "run")
    kept = rheostat.load_network(tmp_path / "run" / "model")
    assert kept.architecture == run.student.architecture
    torch.testing.assert_close(kept(images[:4]), run.student(images[:4]))
    assert torch.load(tmp_path / "run" / "model" / "weights.pt", weights_only=True).keys() == kept.state_dict().keys()
    assert run.summary["teacher_parameters"] == counted(tiny.Own())


def test_a_network_that_is_an_object(tmp_path: Path) -> None:
    own = load_network(tiny.teacher())
    run = rheostat.train("n2n", "shapes", teacher=own, directory=tmp_path / "run", progress=False, **tiny.OPTIONS)
    assert run.settings.teacher == "custom:ConvNet" and run.student.architecture.parameters < counted(own)
    with pytest.raises(RheostatError, match="trained with a network of your own"):
        rheostat.load(tmp_path / "run")
    assert rheostat.load(tmp_path / "run", teacher=own).finished


def test_a_network_of_a_run_that_was_sent_here_is_not_executed(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(FILE)
    Run.create(tmp_path / "run", small(teacher=f"{file}:net")).close()
    shutil.copytree(tmp_path / "run", tmp_path / "sent")
    assert not Run.load(tmp_path / "run").finished
    with pytest.raises(RheostatError, match=r"opening it would run the network .*mine\.py:net: read that code first"):
        Run.load(tmp_path / "sent")


def test_a_file_that_has_changed_is_named_on_resume(tmp_path: Path) -> None:
    file = tmp_path / "other.py"
    file.write_text(FILE)
    run = Run.create(tmp_path / "run", small(teacher=f"{file}:net"))
    with pytest.raises(Interrupted):
        run.train(progress=StopAfter(1))
    file.write_text(FILE + "# another line\n")
    with pytest.raises(RheostatError, match=r"network of other.py has changed since the run began"):
        Run.load(tmp_path / "run").train()


class Wrong(nn.Module):
    """A network of which one thing is wrong."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.one = nn.Conv2d(1, 8, 3, padding=1, groups=1)
        self.grouped = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.tall = nn.Conv2d(8, 8, (3, 1), padding=(1, 0))
        self.even, self.other = (nn.Conv2d(8, 8, 3, padding=1) for _ in range(2))
        self.act = nn.Tanh()
        self.head = nn.Linear(8, 2)
        self.wide = nn.Linear(16, 2)

    def forward(self, image: Tensor) -> Tensor:
        found = self.one(image)
        match self.kind:
            case "grouped":
                found = self.grouped(found)
            case "tall":
                found = self.tall(found)
            case "tanh":
                found = self.act(found)
            case "cat":
                return self.wide(torch.cat([found, found], 1).mean((2, 3)))
            case "times":
                found = found * 2
            case "softmax":
                found = torch.softmax(found, 1)
            case "nested":
                inner = self.even(found)
                found = found + (inner + self.other(inner))
            case "looks":
                found = found if bool(found.sum() > 0) else -found
            case "images":
                return found
            case "transposed":
                found = found.view(found.size(0), -1).view(-1, 8, 6, 6)
        return self.head(found.mean((2, 3)))


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("grouped", "the layer 'grouped' has groups 8: only 1 is cut"),
        ("tall", r"the layer 'tall' has (kernel_size|padding|stride) \(\d, \d\): only squares are cut"),
        ("tanh", "the layer 'act' is a Tanh, which the compressor does not cut"),
        ("cat", "the layer 'cat' is the operation cat, which the compressor does not cut"),
        ("softmax", "has a softmax before its end"),
        ("times", "the layer 'mul' is the operation mul"),
        ("nested", "the layer 'add_1' sums paths of which one holds a sum already"),
        ("looks", "cannot be followed through its layers .* must not depend on the images"),
        ("images", r"makes a tensor \[16, 8, 6, 6\] of 16 images: it must make logits"),
        ("transposed", "was not read as it computes|beside its layers"),
    ],
)
def test_a_network_that_cannot_be_cut_says_which_layer_and_why(kind: str, sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence) as error:
        load_teacher(Wrong(kind), tiny.pictures())
    assert str(error.value).count("\n") == 0 and str(error.value).endswith(".")


def constant() -> nn.Module:
    """A network that always says the commonest class."""
    network = tiny.Own()
    nn.init.zeros_(network.head.weight)
    with torch.no_grad():
        network.head.bias.copy_(torch.bincount(tiny.pictures().train[1]).float())
    return network


@pytest.mark.parametrize(
    ("teacher", "sentence"),
    [
        (constant(), "is right on .* the commonest class alone"),
        (tiny.Own(3), "knows 3 classes, and shapes has 2"),
        (nn.Linear(3, 2), "does not take images of 1 x 6 x 6"),
        (7, r"the teacher \(int\) is a int: the network to compress is a torch.nn.Module"),
        ("plian", "Unknown teacher 'plian': did you mean plain"),
        ("nowhere.py:net", "There is no network file nowhere.py"),
    ],
)
def test_a_teacher_that_is_none(teacher: Any, sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        load_teacher(teacher, tiny.pictures())


def test_names_in_a_file_of_networks(tmp_path: Path) -> None:
    (tmp_path / "more.py").write_text("number = 3\n\ndef fails():\n    raise ValueError('no weights')\n")
    for name, sentence in (("number", "is a int"), ("fails", "no weights"), ("fail", "did you mean fails")):
        with pytest.raises(RheostatError, match=sentence):
            load_teacher(f"{tmp_path / 'more.py'}:{name}", tiny.pictures())


def test_a_network_without_anything_to_cut() -> None:
    bare = nn.Sequential(nn.Conv2d(1, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2))
    found = read_network(bare, tiny.pictures().train[0][:4], "bare").architecture
    for stage in ("removal", "shrinkage"):
        assert not any(Rollouts(stage=stage).free(found))
    from rheostat.collect.compression.search import refuse_uncuttable

    with pytest.raises(RheostatError, match="can be removed: its first layer, its last one, linear layers, average pools and shortcuts"):
        refuse_uncuttable("bare", found, [Rollouts()])


def test_a_damaged_folder(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="There is no network in"):
        load_network(tmp_path)
    for name, content in (("weights.pt", b"nothing"), ("architecture.json", b"{")):
        folder = tmp_path / name
        folder.mkdir()
        for each in Path(tiny.teacher()).iterdir():
            (folder / each.name).write_bytes(content if each.name == name else each.read_bytes())
        with pytest.raises(RheostatError, match=r"is damaged|cannot be read"):
            load_network(folder)


@pytest.mark.parametrize(
    ("arrays", "sentence"),
    [
        ({}, "holds nothing: it must hold images x and classes y"),
        ({"x": np.zeros((9, 4, 4))}, "holds images x without their classes y"),
        ({"x": np.zeros((9, 4)), "y": np.zeros(9, int)}, r"x of .* is float64 \[9, 4\]: images are numbers"),
        ({"x": np.zeros((9, 4, 4)), "y": np.zeros(9)}, "it must be 9 whole numbers from 0 on"),
        ({"x": np.zeros((9, 4, 4)), "y": np.arange(8)}, "it must be 9 whole numbers from 0 on"),
        ({"x": np.full((9, 4, 4), np.nan), "y": np.arange(9) % 2}, "numbers that are not finite"),
        ({"x": np.zeros((40, 4, 4)), "y": np.zeros(40, int)}, "images of one class alone"),
        ({"x": np.zeros((40, 4, 4)), "y": np.arange(40) % 2 * 2}, "no image of the class 1"),
        ({"x": np.zeros((3, 4, 4)), "y": np.arange(3) % 2}, "images for the part"),
        (
            {"x_train": np.zeros((40, 4, 4)), "y_train": np.arange(40) % 2, "x_test": np.zeros((9, 5, 5)), "y_test": np.arange(9) % 2},
            "Images of the part test",
        ),
    ],
)
def test_a_file_of_images_that_is_none(arrays: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", **arrays)
    with pytest.raises(RheostatError, match=sentence):
        load_images(str(tmp_path / "file.npz"))


def test_other_images(tmp_path: Path) -> None:
    (tmp_path / "no.npz").write_text("text")
    cases: list[tuple[str, dict[str, Any], str]] = [
        ("cifar", {}, "Unknown set of images 'cifar'"),
        (str(tmp_path / "none.npz"), {}, "There is no file of images"),
        (str(tmp_path / "no.npz"), {}, "cannot be read as NumPy arrays"),
        ("shapes", {"sides": 8}, "Unknown option of the task shapes 'sides'"),
        ("shapes", {"side": 3}, "side is 3; it must be at least 6"),
        ("shapes", {"noise": "loud"}, "noise is 'loud'"),
        ("digits", {"side": 8}, "The task digits has no options"),
    ]
    for task, options, sentence in cases:
        with pytest.raises(RheostatError, match=sentence):
            load_images(task, options)


def test_parts_of_a_file_that_comes_in_parts(tmp_path: Path) -> None:
    pictures, labels = np.random.default_rng(0).random((50, 4, 4)), np.arange(50) % 2
    np.savez(tmp_path / "two.npz", x_train=pictures, y_train=labels, x_test=pictures[:6], y_test=labels[:6])
    found = load_images(str(tmp_path / "two.npz"))
    assert [len(part[0]) for part in (found.train, found.validation, found.test)] == [40, 10, 6]
    np.savez(tmp_path / "bytes.npz", x=(255 * pictures).astype(np.uint8), y=labels)
    assert float(load_images(str(tmp_path / "bytes.npz")).train[0].max()) <= 1.0


def test_digits_are_those_of_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    found = load_images("digits")
    assert sum(len(part[0]) for part in (found.train, found.validation, found.test)) == 1_797
    assert found.shape == (1, 8, 8) and found.classes == 10


def test_built_in_teachers_have_the_sizes_that_they_should() -> None:
    images = load_images("shapes")
    sizes = {name: recipe.architecture(images).parameters for name, recipe in TEACHERS.items()}
    assert 60_000 < sizes["plain"] < 150_000 and 60_000 < sizes["residual"] < 150_000 and sizes["small"] < 10_000


# --- options ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"drawn_by": "chance", "signal": "epoch"}, "chance draws the networks"),
        ({"drawn_by": "chance", "removal_learning_rate": 0.1}, "chance draws the networks"),
        ({"constraint_horizon": 5}, "nothing is constrained"),
        ({"removal_share": 1.0, "shrinkage_learning_rate": 0.2}, "no epoch shrinks layers"),
        ({"removal_share": 0.0, "removal_learning_rate": 0.2}, "no epoch removes layers"),
        ({"removal_share": 1.0, "strided_convolutions": "fixed"}, "no epoch shrinks layers"),
        ({"student_patience": 5}, "no more passes than that"),
        ({"rollouts": 1, "step_per": "rollout"}, "one rollout per epoch"),
        ({"save_best": True}, "measures its result at the end alone"),
        ({"stop_at": ("reward", 1.0)}, "measures its result at the end alone"),
        ({"offline": "data"}, "offline is not for compression methods"),
        ({"model": "tiny"}, "model is not for compression methods"),
    ],
)
def test_an_option_that_cannot_act_is_refused(options: dict[str, Any], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match=sentence):
        Run.create(tmp_path / "run", small(**options))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"task": "shapes", "data": "digits"}, "data is the set of images, and so is the task shapes"),
        ({"task": "shapes", "controller": "a", "from_run": "b"}, "controller and from_run both name the run"),
        ({"task": "shapes", "policy": nn.Linear(2, 2)}, "hand over the network to compress as teacher"),
        ({"task": 3}, "The set of images is a int"),
        ({}, "Say what to train n2n on, for example digits"),
    ],
)
def test_what_is_handed_over_in_the_wrong_place(given: dict[str, Any], sentence: str) -> None:
    with pytest.raises(RheostatError, match=sentence):
        rheostat.train("n2n", **given)


def test_the_images_of_a_file_give_way_to_those_that_are_named(tmp_path: Path) -> None:
    (tmp_path / "n2n.toml").write_text('method = "n2n"\ntask = "shapes"\n')
    with pytest.raises(RheostatError, match="Unknown set of images 'letters'"):
        rheostat.train("n2n", data="letters", config=tmp_path / "n2n.toml", directory=tmp_path / "run")


def test_other_methods_have_no_student_and_no_teacher(tmp_path: Path) -> None:
    with pytest.raises(RheostatError, match="teacher is not for control methods"):
        rheostat.api.settings_for("ppo", "CartPole-v1", teacher="residual")
    with pytest.raises(RheostatError, match="does not train a control policy"):
        Run.create(tmp_path / "run", small()).policy(np.zeros(3))
