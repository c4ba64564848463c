"""Samples are changed as is said, by chance that follows the seed, and labels stay true."""

import copy
from dataclasses import replace

import pytest
import torch

from onnxslim_learn.errors import InputError
from onnxslim_learn.train import augmentation as augment
from onnxslim_learn.train.loop import Keeping, Learner, train
from tests.train.test_loop import assert_same, found, task, weights  # noqa: F401  (a fixture)

IMAGES = {"x": (2, 3)}


def pictures(count=16, size=(8, 12)):
    return torch.randn(count, 3, *size, generator=torch.Generator().manual_seed(1))


def test_an_image_is_moved_as_a_whole():
    x = pictures()
    moved = augment.shift({"x": x, "size": torch.ones(16)}, IMAGES)
    assert torch.equal(moved["size"], torch.ones(16))
    several = set()
    for before, after in zip(x, moved["x"], strict=True):
        wide = torch.nn.functional.pad(before[None], (2, 2, 1, 1), mode="replicate")[0]
        fits = [(r, c) for r in range(3) for c in range(5) if torch.equal(wide[:, r : r + 8, c : c + 12], after)]
        assert len(fits) == 1
        several |= set(fits)
    assert len(several) > 4


def test_some_images_are_mirrored():
    x = pictures(64)
    mirrored = augment.flip({"x": x}, IMAGES)["x"]
    alike = [torch.equal(a, b) for a, b in zip(x, mirrored, strict=True)]
    turned = [torch.equal(a.flip(2), b) for a, b in zip(x, mirrored, strict=True)]
    assert all(a != b for a, b in zip(alike, turned, strict=True))
    assert 16 < sum(turned) < 48


def test_mixed_images_are_told_by_their_shares():
    x = pictures()
    inputs, order, share = augment.mix({"x": x}, IMAGES)
    torch.testing.assert_close(inputs["x"], share * x + (1 - share) * x[order])
    assert 0.5 <= share <= 1


@pytest.mark.parametrize("names", [("shift", "flip"), ("mix",)])
@pytest.mark.parametrize("spec", ["distill", "cross-entropy"])
def test_a_net_learns_from_them_with_the_same_numbers_every_time(found, names, spec):  # noqa: F811
    histories = []
    for _ in range(2):
        one = task(found, spec=spec, steps=24)
        one = replace(one, augment=augment.augmentation(names, one.samples.declared))
        histories.append(train(one))
    assert histories[0] == histories[1]
    assert histories[0][-1]["loss"] < histories[0][0]["loss"]


def test_labels_of_mixed_samples_count_by_their_shares(found):  # noqa: F811
    one = task(found, spec="cross-entropy", steps=1, optimizer="sgd", rate=1e-9)
    torch.manual_seed(0)

    def halves(inputs, images):
        return inputs, torch.arange(len(inputs["x"])).flip(0), 0.25

    function = augment.Augmentation([(halves, True)], IMAGES)
    mixed = train(replace(one, augment=function))[0]["loss"]
    portion_loss = train(task(found, spec="cross-entropy", steps=1, optimizer="sgd", rate=1e-9))[0]["loss"]
    wrong = augment.Augmentation([(lambda inputs, images: (*halves(inputs, images)[:2], 0.0), True)], IMAGES)
    other = train(replace(task(found, spec="cross-entropy", steps=1, optimizer="sgd", rate=1e-9), augment=wrong))[0]
    assert mixed == pytest.approx(0.25 * portion_loss + 0.75 * other["loss"], rel=1e-4)


def test_what_cannot_be_augmented_is_said(found):  # noqa: F811
    declared = task(found).samples.declared
    with pytest.raises(InputError, match="takes no images"):
        rank = {name: replace(one, dims=one.dims[:2]) for name, one in declared.inputs.items()}
        augment.augmentation(["flip"], replace(declared, inputs=rank))
    with pytest.raises(InputError, match="mixed twice"):
        augment.augmentation(["mix", "mix"], declared)
    with pytest.raises(InputError, match="Did you mean flip"):
        augment.augmentation(["flop"], declared)


class Trail(Learner):
    """Keeps what weights were after every step."""

    def __init__(self, module):
        self.module, self.seen = module, [copy.deepcopy(list(module.parameters()))]

    def updated(self, step, rate):
        self.seen.append([p.detach().clone() for p in self.module.parameters()])


def test_a_run_ends_with_the_mean_of_its_weights(found, tmp_path):  # noqa: F811
    one = task(found, steps=30, average=0.8)
    trail = Trail(one.module)
    train(one, trail, Keeping(tmp_path, every=7))
    for number, parameter in enumerate(one.module.parameters()):
        mean = trail.seen[0][number].detach()
        for step, now in enumerate(trail.seen[1:]):
            kept = min(0.8, (step + 1) / (step + 10))
            mean = kept * mean + (1 - kept) * now[number]
        torch.testing.assert_close(parameter.detach(), mean)


def test_a_mean_goes_on_where_a_run_was_killed(found, tmp_path):  # noqa: F811
    whole, killed, resumed = (task(found, steps=20, average=0.9) for _ in range(3))
    train(whole)

    def kill(step, numbers):
        if step == 12:
            raise RuntimeError

    keeping = Keeping(tmp_path, every=5, show=kill)
    with pytest.raises(RuntimeError):
        train(killed, None, keeping)
    train(resumed, None, replace(keeping, resume=True, show=lambda step, numbers: None))
    assert_same(weights(whole), weights(resumed))
