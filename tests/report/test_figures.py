"""Charts and tables in files are those of the page."""

import csv
import io

import pytest
from PIL import Image

from onnxslim_learn.errors import InputError
from onnxslim_learn.report import drawing, figures
from onnxslim_learn.report.blocks import Bar, Bars, Line, Lines, Picture, Point, Scatter, Section, Table, Text

pytest.importorskip("vl_convert")

ODD = "a\x1b<b>&\x07 é"
LAYER = {"name": ODD, "op_type": "Conv", "module": f"{ODD}.inside", "width": [4, 2], "macs": [9, 4], "params": [1, 1]}
LAYER |= {"group": "g", "inputs": []}
BLOCKS = [
    Section(
        "quality", (Text("said"), Table("Layers, all", ("name", "n"), (("one\n  inside", "1"), ("two, three", "2"))))
    ),
    Bars(ODD, ("before", "after"), (Bar(ODD, 1.0, "1", 0), Bar("", 2.0, "2", 1))),
    Lines(
        "Losses", "", ("units", "loss"), (Line("x", ((1, 0.5), (2, 0.1))), Line("y", ((1, 0.2),), 1)), logarithmic=True
    ),
    Scatter("Points", "", ("a", "b"), (".0%", "~g"), (Point(ODD, 0.5, 0.5, "said", best=True),)),
    Picture((LAYER,), ({"name": "g"},)),
]


def test_every_chart_and_table_has_its_files(tmp_path):
    files = figures.save(tmp_path / "new", BLOCKS)
    assert [path.name for path in files] == [
        "01-layers-all.csv",
        "02-a-b.svg",
        "02-a-b.png",
        "03-losses-1-x.svg",
        "03-losses-1-x.png",
        "03-losses-2-y.svg",
        "03-losses-2-y.png",
        "04-points.svg",
        "04-points.png",
        "05-network.csv",
        "05-network.svg",
        "05-network.png",
    ]
    for path in files:
        if path.suffix == ".png":
            with Image.open(path) as picture:
                assert picture.width >= figures.WIDE
                assert len(picture.convert("L").getcolors(1 << 16)) > 2, "nothing is drawn"
        elif path.suffix == ".svg":
            assert path.read_text(encoding="utf-8").startswith("<svg")


def test_sections_of_several_models_have_a_folder_each(tmp_path):
    table = Table("Layers", ("name",), (("one",),))
    each = [Section("each", (Section("change", (table,)),), f"net-{share}.onnx") for share in (0.5, 0.3)]
    files = figures.save(tmp_path, [Section("compared", (table,)), Section("each", tuple(each))])
    assert [str(path.relative_to(tmp_path)) for path in files] == [
        "01-layers.csv",
        "net-0-5-onnx/01-layers.csv",
        "net-0-3-onnx/01-layers.csv",
    ]


def test_tables_can_be_read_again(tmp_path):
    (file, *_) = figures.save(tmp_path, BLOCKS[:1])
    rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"))))
    assert rows == [["name", "n"], ["one | inside", "1"], ["two, three", "2"]]


def test_a_folder_that_is_a_file_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="report_dir"):
        figures.save(tmp_path / "file", BLOCKS)


def test_layers_of_a_drawing_are_called_by_what_tells_them_apart():
    modules = [f"model.{k}.cv1.conv" for k in (2, 4)]
    drawn = drawing.svg(tuple({**LAYER, "name": one, "module": one, "inputs": []} for one in modules), ())
    assert "Conv 2.cv1" in drawn
    assert "Conv 4.cv1" in drawn
