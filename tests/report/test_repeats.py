"""Groups that repeated blocks have alike are one row."""

from onnxslim_learn.report.sections.groups import repeats


def row(place, what, role="hidden", width=8):
    return {"name": f"{place} {what}", "title": f"{place}: {what}", "role": role, "width": width}


def test_blocks_that_are_alike_are_one_row_and_others_their_own():
    layers = [row(f"layer {k}, MLP", "8 hidden units") for k in range(5)]
    others = [row("layer 5, MLP", "9 hidden units", width=9), row("head", "3 outputs", "outputs", 3)]
    assert repeats([*layers, *others]) == [layers, [others[0]], [others[1]]]


def test_a_few_blocks_stay_apart():
    layers = [row(f"layer {k}, MLP", "8 hidden units") for k in range(3)]
    assert repeats(layers) == [[layer] for layer in layers]


def test_titles_with_other_words_are_not_alike():
    rows = [row(f"layer {k}, {part}", "8 hidden units") for k in range(4) for part in ("MLP", "experts")]
    assert [len(alike) for alike in repeats(rows)] == [4, 4]
