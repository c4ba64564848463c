"""What an output is decides by which figures it is judged."""

import numpy as np
import onnx
import onnxruntime as ort
import pytest

from onnxslim_learn import demo
from onnxslim_learn.analysis import analyze
from onnxslim_learn.coupling import roles
from onnxslim_learn.coupling.solver import couple
from onnxslim_learn.graph.load import load
from onnxslim_learn.metrics import Channels, deviation
from onnxslim_learn.output_kinds import kind, told_by_labels
from onnxslim_learn.quality.channels import channels

SAMPLES = 24
RNG = np.random.default_rng(0)


def softmax(x):
    ratio = np.exp(x - x.max(-1, keepdims=True))
    return ratio / ratio.sum(-1, keepdims=True)


def logits(*shape):
    """Rows of which one number stands out, as a classifier's."""
    found = RNG.normal(0, 1, shape)
    flat = found.reshape(-1, shape[-1])
    flat[np.arange(len(flat)), RNG.integers(0, shape[-1], len(flat))] += 6
    return found


VECTORS = RNG.normal(0, 1, (SAMPLES, 64))
QUANTITIES = RNG.normal(0, 1, (SAMPLES, 4)) + np.array([0, 90, -40, 20])


def zero_sum(rows):
    """What a cross-entropy leaves of logits: nothing that all have in common."""
    return rows - 0.95 * rows.mean(axis=1, keepdims=True)


KINDS = {
    "logits": (logits(SAMPLES, 10), "", "logits"),
    "many logits": (logits(SAMPLES, 1000), "", "logits"),
    "probabilities": (softmax(logits(SAMPLES, 10)), "", "probabilities"),
    "labels that stand alone": (RNG.uniform(0, 1, (SAMPLES, 5)), "", "labels"),
    "rows of one length": (VECTORS / np.linalg.norm(VECTORS, axis=1, keepdims=True), "", "embeddings"),
    "a wide table without peaks": (VECTORS, "", "embeddings"),
    "features after a ReLU": (np.maximum(VECTORS, 0), "", "embeddings"),
    "a name that says logits": (VECTORS, "logits", "logits"),
    "a name that says embedding": (logits(SAMPLES, 64), "text_embeds", "embeddings"),
    "one dimension that is always large": (VECTORS + 50 * (np.arange(64) == 7), "", "embeddings"),
    "one number": (RNG.normal(0, 1, (SAMPLES, 1)), "", "number"),
    "tokens by their name": (RNG.normal(0, 1, (SAMPLES, 7, 9)), "logits", "logits"),
    "tokens of a vocabulary": (logits(SAMPLES, 7, 1200), "", "logits"),
    "tokens with probabilities": (softmax(logits(SAMPLES, 7, 9)), "", "probabilities"),
    "hidden states": (RNG.normal(0, 1, (SAMPLES, 7, 64)), "last_hidden_state", "numbers"),
    "an image": (RNG.normal(0, 1, (SAMPLES, 3, 8, 8)), "", "numbers"),
    "logarithms of probabilities": (np.log(softmax(VECTORS)), "", "logits"),
    "a sequence of states": (RNG.normal(0, 1, (SAMPLES, 7, 9)), "", "numbers"),
    "boxes": (RNG.uniform(0, 640, (SAMPLES, 100, 4)), "boxes", "numbers"),
    "one box": (RNG.normal(0, 1, (SAMPLES, 4)), "pred_boxes", "numbers"),
    "scores of boxes": (RNG.normal(0, 1, (SAMPLES, 100, 4)), "scores", "logits"),
    "one number without an axis": (RNG.normal(0, 1, SAMPLES), "", "number"),
    "a row of one length": (VECTORS[:2, :4] / np.linalg.norm(VECTORS[:2, :4], axis=1, keepdims=True), "", "embeddings"),
    "few quantities with places of their own": (QUANTITIES, "", "numbers"),
    "few quantities of different scales": (RNG.normal(0, 1, (SAMPLES, 3)) * [1, 40, 0.5], "", "numbers"),
    "few quantities without a sign": (np.abs(RNG.normal(40, 10, (SAMPLES, 2))), "", "numbers"),
    "few quantities that are called scores": (QUANTITIES, "scores", "logits"),
    "classes of which one always leads": (zero_sum(logits(SAMPLES, 10)) + np.eye(10)[3] * 40, "", "logits"),
    "many classes without peaks": (zero_sum(RNG.normal(0, 1, (SAMPLES, 40))), "", "logits"),
    "places of many points": (RNG.normal(0, 1, (SAMPLES, 1)) + VECTORS + 9 * np.arange(64), "", "numbers"),
    "two classes": (zero_sum(RNG.normal(0, 1, (SAMPLES, 2))), "", "logits"),
    "a single row": (QUANTITIES[:1], "", "logits"),
    "whole numbers": (np.ones((SAMPLES, 4), np.int64), "", "choices"),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds(name):
    output, called, wanted = KINDS[name]
    assert kind(output, called) == wanted


ALONE = VECTORS[:1, :4]
HINTS = {
    "one row, of length one as the operator says": (ALONE / np.linalg.norm(ALONE), "embeddings", "embeddings"),
    "shares, as a sigmoid leaves them": (RNG.uniform(0, 1, (SAMPLES, 64)), "labels", "labels"),
    "no shares, whatever the operator": (VECTORS[:, :9], "labels", "logits"),
    "a softmax over another axis": (softmax(logits(SAMPLES, 9).T).T, "probabilities", "labels"),
    "a wide table that an operator makes logits": (VECTORS, "logits", "logits"),
    "tokens": (RNG.normal(0, 1, (SAMPLES, 7, 9)), "logits", "logits"),
    "a narrow table beside probabilities": (VECTORS[:, :9], "quantities", "numbers"),
    "a wide table beside probabilities": (VECTORS, "quantities", "embeddings"),
}


@pytest.mark.parametrize("name", HINTS)
def test_the_last_operator_decides_where_numbers_leave_it_open(name):
    output, hint, wanted = HINTS[name]
    assert kind(output, "", hint) == wanted


@pytest.mark.parametrize(
    ("operator", "hint"),
    [("Softmax", "probabilities"), ("LogSoftmax", "logits"), ("Sigmoid", "labels"), ("Relu", "")],
)
def test_the_operator_table_tells_what_operators_put_out(operator, hint):
    model = onnx.parser.parse_model(
        f'<ir_version: 10, opset_import: ["": 21]> net (float[N,4] x) => (float[N,4] y) {{ y = {operator}(x) }}'
    )
    assert roles.puts_out(analyze(model).graph.model.graph.outputs[0]) == hint


def normalised_before(count):
    """Return a net whose output has so many nodes between it and a normalisation."""
    chain = " ".join(f"h{k + 1} = Tanh(h{k})" for k in range(count - 1))
    return f"h0 = LayerNormalization(x, g) {chain} y = Tanh(h{count - 1}) r = Relu(x)"


READ = [
    ("float[N] r", "y = Gemm(x, w) r0 = ArgMax<axis=1,keepdims=0>(y) r = Cast<to=1>(r0)", "logits"),
    ("float[N,4] r", "y = Gemm(x, w) r = Softmax(y)", "logits"),
    ("float[N,4] r", "h = Gemm(x, w) y = Flatten(h) r = Softmax(h)", "logits"),
    ("float[N,4] r", "h = LayerNormalization(x, g) y = Tanh(h) r = Relu(x)", "embeddings"),
    ("float[N,4] r", "h = LayerNormalization(x, g) y = Gemm(h, w) r = Relu(x)", ""),
    ("float[N,4] r", normalised_before(roles.NEAR - 1), "embeddings"),
    ("float[N,4] r", normalised_before(roles.NEAR), ""),
    ("float[N,4] r", "y = Gemm(x, w) r = Relu(y)", ""),
    ("float[N,4] r", "y = Gemm(x, w) s = Relu(x) r = Softmax(s)", "quantities"),
]


def test_a_name_says_more_than_what_stands_beside():
    assert kind(VECTORS[:, :9], "logits", "quantities") == "logits"


@pytest.mark.parametrize(("other", "nodes", "hint"), READ)
def test_the_graph_tells_what_an_output_is_read_as(other, nodes, hint):
    weights = "float[4,4] w = {" + ",".join("1" for _ in range(16)) + "}, float[4] g = {1,2,1,2}"
    net = f"net (float[N,4] x) => (float[N,4] y, {other}) <{weights}> {{ {nodes} }}"
    model = onnx.parser.parse_model(f'<ir_version: 10, opset_import: ["": 21]> {net}')
    assert roles.puts_out(analyze(model).graph.model.graph.outputs[0]) == hint


@pytest.mark.parametrize(
    ("labels", "told"),
    [
        (np.arange(SAMPLES) % 4, "logits"),
        (np.arange(SAMPLES), ""),
        (QUANTITIES, "numbers"),
        (np.eye(4)[np.arange(SAMPLES) % 4], ""),
        (None, ""),
    ],
)
def test_labels_tell_what_an_output_is(labels, told):
    assert told_by_labels(RNG.normal(0, 1, (SAMPLES, 4)), [labels]) == told
    assert told_by_labels(RNG.normal(0, 1, (SAMPLES, 4)), [labels, None]) == ""


def test_a_trained_classifier_is_read_as_one_whatever_it_sees():
    session = ort.InferenceSession(str(demo.model_path()))
    noise = RNG.random((64, 1, 8, 8)).astype(np.float32)
    for images in (demo.held_out()["image"][:24], noise, 0.1 * noise, 5 * noise):
        assert kind(session.run(None, {"image": images})[0]) == "logits"


def compared(wanted, found, name="y"):
    return deviation({name: wanted}, {name: found})[name]


def test_classes_have_top_five():
    wanted = logits(SAMPLES, 10)
    second = wanted.copy()
    first = wanted.argmax(1)
    second[np.arange(SAMPLES), first] = np.partition(wanted, -2, 1)[:, -2] - 0.01
    found = compared(wanted, second)
    assert found.agreement == 0
    assert found.figures["top5"] == 1
    reverse = compared(wanted, -wanted)
    assert (reverse.agreement, reverse.figures["top5"]) == (0, 0)


def test_tokens_agree_one_by_one_and_have_a_perplexity():
    """Against a uniform distribution, the perplexity is the number of classes; against itself, its own."""
    wanted = softmax(logits(SAMPLES, 7, 9))
    flat = np.full_like(wanted, 1 / 9)
    found, same = compared(wanted, flat), compared(wanted, wanted)
    assert found.figures["perplexity"] == pytest.approx(9)
    assert same.figures["perplexity"] == pytest.approx(same.figures["original_perplexity"])
    assert same.kl == pytest.approx(0, abs=1e-12)
    half = np.concatenate((wanted[:, :4], wanted[:, 4:, ::-1]), axis=1)
    moved = (wanted[:, 4:].argmax(-1) != 4).mean() * 3 / 7
    assert compared(wanted, half).agreement == pytest.approx(1 - moved)


def test_embeddings_are_judged_by_neighbours_and_not_as_classes():
    found = compared(VECTORS, VECTORS[:, ::-1] @ np.diag(RNG.choice([-1, 1], 64)))
    assert (found.kl, found.agreement) == (None, None)
    assert found.destroyed
    turned, _ = np.linalg.qr(RNG.normal(0, 1, (64, 64)))
    assert compared(VECTORS, VECTORS @ turned).figures["retrieval"] == 1  # neighbours stay where all are turned
    assert compared(VECTORS, VECTORS @ turned).figures["nearness"] == 1
    strange = compared(VECTORS, RNG.permutation(VECTORS)).figures
    assert max(strange["retrieval"], strange["nearness"]) < 0.5


def test_neighbours_that_are_as_near_are_as_good():
    """Of three that lie together, noise decides which is nearest: the same only by chance, but always one as near."""
    rng = np.random.default_rng(0)
    triples = np.repeat(rng.normal(0, 1, (8, 64)), 3, axis=0)
    wanted, moved = (triples + rng.normal(0, 0.05, triples.shape) for _ in range(2))
    told = deviation({"embeddings": wanted}, {"embeddings": moved})["embeddings"].figures
    assert told["retrieval"] < 0.8
    assert told["nearness"] > 0.98


def test_one_number_for_each_sample_is_judged_by_its_correlation():
    """Ages: a net that says the mean for all has a cosine of nearly one, and is worth nothing."""
    ages = RNG.normal(40, 4, (SAMPLES, 1))
    dull = compared(ages, np.full_like(ages, ages.mean()) + RNG.normal(0, 0.01, ages.shape))
    assert dull.destroyed
    assert abs(dull.cosine) < 0.5
    assert dull.figures["error"] == pytest.approx(1, abs=0.05)
    good = compared(ages, ages + 0.4)
    assert good.cosine == pytest.approx(1)
    assert good.figures["error"] == pytest.approx(0.4 / ages.std())
    assert not good.destroyed


def test_what_all_logits_have_in_common_does_not_count():
    wanted = logits(SAMPLES, 10)
    assert compared(wanted, wanted + RNG.normal(0, 50, (SAMPLES, 1))).worst == pytest.approx(1)


def spelt(rng, texts):
    """Lines as a recogniser writes them: every letter several times, nothing (class 0) between; ``(lines, 24, 40)``."""
    steps = np.zeros((len(texts), 24), int)
    for row, text in zip(steps, texts, strict=True):
        written = [step for letter in text for step in (*[letter] * rng.integers(1, 3), *[0] * rng.integers(1, 3))]
        row[: len(written)] = written
    return 8.0 * (steps[..., None] == np.arange(40)) + rng.normal(0, 0.1, (*steps.shape, 40))


def test_lines_count_as_read_where_all_their_steps_say_the_same():
    """However often a letter is repeated; of tokens that were given, each is an answer by itself."""
    rng = np.random.default_rng(0)
    texts = [list(rng.integers(1, 40, 6)) for _ in range(20)]
    other = [[*text[:-1], text[-1] % 39 + 1] if k < 5 else text for k, text in enumerate(texts)]
    sides = [softmax(spelt(np.random.default_rng(seed), rows)) for seed, rows in ((1, texts), (2, other))]
    lines, tokens = ({"y": Channels(2, tokens=given)} for given in (False, True))
    told = deviation({"y": sides[0]}, {"y": sides[1]}, lines)["y"].figures
    assert told["read"] == 0.75
    assert "read" not in deviation({"y": sides[0]}, {"y": sides[1]}, tokens)["y"].figures


@pytest.mark.parametrize(
    ("given", "tokens"),
    [("float[n,3,8,8] x", False), ("int64[n,12] x", True), ("uint8[n,8,8,3] x", False), ("float[n,80] x", False)],
)
def test_tokens_are_rows_of_whole_numbers(given, tokens):
    dims = given[given.index("[") : given.index("]") + 1]
    text = f'<ir_version: 8, opset_import: ["" : 17]> n ({given}) => (float{dims} y) {{ y = Cast<to = 1>(x) }}'
    model = onnx.parser.parse_model(text)
    assert channels(couple(load(model), sensitive=False))["y"].tokens == tokens


@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_classes_that_no_sample_shows_are_no_block_of_their_own(scale):
    """Six samples of two classes: the logits of the others hardly vary, and what moves them decides nothing."""
    rng = np.random.default_rng(0)
    wanted = rng.normal(0, 0.01, (12, 10)) + 6 * np.eye(10)[np.arange(12) % 2]
    moved = wanted + scale * rng.normal(0, 0.3, wanted.shape)
    told = deviation({"logits": wanted}, {"logits": moved})["logits"]
    assert [block.channels for block in told.blocks] == ["all"]
    assert told.agreement == 1
    assert told.worst > 0.9
