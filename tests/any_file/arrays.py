"""Damaged samples by rules: npz, npy, CSV, folders."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import onnx
from PIL import Image

from tests.any_file.case import Case
from tests.any_file.model_files import rich

SHAPE = (12, 3, 8, 8)
END = "--target macs=0.6 --no-latency --no-repair --work 1k"
SLIM = f"slim m.onnx -o new.onnx {END} --data"


def model(folder: Path) -> None:
    """The model that samples are for."""
    onnx.save(rich(), folder / "m.onnx")


def good() -> np.ndarray:
    """Samples that fit."""
    return np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)


def npy(header: str = "", body: bytes = b"", version: tuple[int, int] = (1, 0), length: int | None = None) -> bytes:
    """A file as numpy writes it, with any header."""
    text = header.encode("latin1") + b"\n"
    size = len(text) if length is None else length
    return b"\x93NUMPY" + bytes(version) + size.to_bytes(2 if version == (1, 0) else 4, "little") + text + body


def described(shape: object = SHAPE, descr: str = "'<f4'", fortran: object = False) -> str:
    """A header."""
    return f"{{'descr': {descr}, 'fortran_order': {fortran}, 'shape': {shape}, }}"


BODY = good().tobytes()
HEADERS = {
    "no shape": npy("{'descr': '<f4', 'fortran_order': False}", BODY),
    "no header": npy("", BODY),
    "a header that is code": npy("__import__('os').system('touch new.txt')", BODY),
    "a header that is deep": npy("(" * 5000 + ")" * 5000, BODY),
    "a header that is long": npy(described() + " " * 60_000, BODY),
    "a header beyond the end": npy(described(), b"", length=60_000),
    "a header of 4 GB": npy(described(), b"", (2, 0), 2**32 - 1),
    "an unknown version": npy(described(), BODY, (9, 9)),
    "negative sizes": npy(described((-1, 3, 8, 8)), BODY),
    "sizes that are fractions": npy(described((1.5, 3, 8, 8)), BODY),
    "sizes that are texts": npy(described(("a",)), BODY),
    "no end of sizes": npy(described((2**62, 3, 8, 8)), BODY),
    "sizes whose product overflows": npy(described((2**40, 2**40)), BODY),
    "as many samples as memory has bytes": npy(described((2**34, 3, 8, 8)), BODY),
    "too few numbers": npy(described(), BODY[:-7]),
    "none of its numbers": npy(described()),
    "objects": npy(described(descr="'|O'"), b"\x80\x04N."),
    "an unknown type": npy(described(descr="'<q9'"), BODY),
    "texts": npy(described((2,), "'<U4'"), bytes(32)),
    "dates": npy(described((2,), "'<M8[s]'"), bytes(16)),
    "records": npy(described((4,), "[('a', '<f4'), ('b', '<i4')]"), bytes(32)),
    "a type of no bytes": npy(described((12,), "'|V0'")),
    "complex numbers": npy(described(SHAPE, "'<c8'"), BODY * 2),
    "booleans": npy(described(SHAPE, "'|b1'"), bytes(2304)),
    "an order that is no truth": npy(described(fortran="'yes'"), BODY),
    "64 axes": npy(described((1,) * 64), BODY[:4]),
}
ARRAYS = {
    "no samples": good()[:0],
    "an axis less": good()[:, :, :, 0],
    "an axis more": good()[None],
    "no axes": np.float32(1),
    "other channels": good()[:, :2],
    "other sizes": good()[:, :, :5],
    "not a number": np.full(SHAPE, np.nan, np.float32),
    "endless": np.full(SHAPE, np.inf, np.float32),
    "no float": np.full(SHAPE, 2**40),
    "beyond half precision": np.full(SHAPE, 1e37),
    "beyond single precision": np.full(SHAPE, 1e300),
    "negative whole numbers": np.full(SHAPE, -1, np.int8),
}


def npy_cases() -> Iterator[Case]:
    """Files of one array, and the same in archives."""
    for name, content in HEADERS.items():
        yield _case(f"npy: {name}", "bad.npy", content)
        yield _case(f"npz: {name}", "bad.npz", zipped({"x.npy": content}))
        yield _case(f"npz, packed: {name}", "bad.npz", zipped({"x.npy": content}, zipfile.ZIP_DEFLATED))
    for name, array in ARRAYS.items():
        yield _case(f"npy of {name}", "bad.npy", _saved(array))


def npz_cases() -> Iterator[Case]:
    """Archives."""
    whole = zipped({"x.npy": _saved(good())})
    packed = zipped({"x.npy": _saved(good())}, zipfile.ZIP_DEFLATED)
    for content, said in ((whole, "stored"), (packed, "packed")):
        for share in (0.0, 0.1, 0.5, 0.9, 0.99):
            yield _case(f"npz, {said}, cut at {share}", "bad.npz", content[: int(share * len(content))])
        for where in np.random.default_rng(1).integers(0, len(content), 12):
            flipped = content[:where] + bytes([content[where] ^ 0x41]) + content[where + 1 :]
            yield _case(f"npz, {said}, byte {where} changed", "bad.npz", flipped)
        for where in (content.rindex(b"PK\x01\x02") + place for place in (8, 10, 20, 24, 28, 42)):
            changed = content[:where] + b"\xff\xff" + content[where + 2 :]
            yield _case(f"npz, {said}, entry changed at {where}", "bad.npz", changed)
    encrypted = bytearray(whole)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        encrypted[whole.rindex(mark) + place] |= 1
    labels = np.array([None, {}], object)
    buffer = io.BytesIO()
    np.save(buffer, labels, allow_pickle=True)
    x = _saved(good())
    for name, content in {
        "encrypted": bytes(encrypted),
        "empty": zipped({}),
        "no arrays": zipped({"readme.txt": b"nothing"}),
        "another name": zipped({"z.npy": x}),
        "one name too many": zipped({"x.npy": x, "z.npy": x}),
        "the same name twice": zipped([("x.npy", x), ("x.npy", x)]),
        "a name that is a path": zipped({"../x.npy": x}),
        "a name with control characters": zipped({"x\x1b[31m\n.npy": x}),
        "ten thousand names": zipped({f"x{k}.npy": b"" for k in range(10_000)}),
        "objects as labels": zipped({"x.npy": x, "labels.npy": buffer.getvalue()}),
        "fewer labels": zipped({"x.npy": x, "labels.npy": _saved(np.arange(3))}),
        "labels with axes": zipped({"x.npy": x, "labels.npy": _saved(np.zeros((12, 2, 2)))}),
        "labels beyond the classes": zipped({"x.npy": x, "labels.npy": _saved(np.full(12, 10**9))}),
        "negative labels": zipped({"x.npy": x, "labels.npy": _saved(np.full(12, -1))}),
        "numbers that unpack to 1 GB": zipped(
            {"x.npy": npy(described((2**18, 3, 8, 8)), bytes(2**18 * 192 * 4 // 64))}, zipfile.ZIP_DEFLATED
        ),
    }.items():
        yield _case(f"npz: {name}", "bad.npz", content)


def folder_cases() -> Iterator[Case]:
    """Folders of images."""

    def picture(*size: int, mode: str = "RGB", kind: str = "PNG") -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, size, None).save(buffer, kind)
        return buffer.getvalue()

    small = picture(8, 8)
    bomb = small[:16] + (60_000).to_bytes(4, "big") * 2 + small[24:]
    for name, files in {
        "empty": {},
        "no images": {"a.txt": b"text"},
        "an empty image": {"a.png": b""},
        "text as an image": {"a.png": b"text"},
        "half an image": {"a.png": small[:40]},
        "an image of 60000 x 60000": {"a.png": bomb},
        "an image of no size": {"a.png": small[:16] + bytes(8) + small[24:]},
        "one of many damaged": {**{f"{k}.png": small for k in range(12)}, "99.png": small[:40]},
        "a folder called as an image": {"a.png/b.txt": b""},
        "python as an image": {"a.png": b"import os\n"},
    }.items():
        yield Case(f"folder: {name}", f"{SLIM} bad", _folder(files))


def other_cases() -> Iterator[Case]:
    """What is no source of samples, or cannot be opened."""
    for name, content in {"bad.csv": b"1,2\n3\n", "bad.txt": b"x", "bad.pkl": b"\x80\x04N.", "bad": b"x"}.items():
        yield _case(f"a file {name}", name, content)
    code = {
        "raises": "def f(n): raise ValueError('a\\nb')",
        "exits": "def f(n): raise SystemExit(3)",
        "ends the generator": "def f(n): raise GeneratorExit",
        "gives nothing": "def f(n): return None",
        "gives a number": "def f(n): return 3",
        "gives ragged batches": "def f(n):\n yield {'x': [[1], [1, 2]]}",
        "gives texts": "def f(n):\n yield {'x': ['a']}",
        "gives objects": "def f(n):\n yield {'x': [object()]}",
        "gives another name": "def f(n):\n yield {'q': [1.0]}",
        "gives batches for ever": "def f(n):\n while True: yield {}",
        "takes nothing": "def f(): return []",
        "is no function": "f = 3",
        "is no Python": "def f(:",
        "imports what is not there": "import no_such_module_anywhere",
        "exits when it is imported": "raise SystemExit(4)",
        "recurs": "def f(n): return f(n)",
    }
    for name, text in code.items():
        yield Case(f"function that {name}", f"{SLIM} badmodule:f", _module(text), ("badmodule",))
    for spec in ("badmodule:", ":f", "bad module:f", "badmodule:f.g", "os:system", "badmodule:no", "a:b:c", "..:f"):
        yield Case(f"function {spec!r}", (*SLIM.split(), spec), _module("def f(n): return []"), (spec, "--data"))


def zipped(members: dict[str, bytes] | list[tuple[str, bytes]], kind: int = zipfile.ZIP_STORED) -> bytes:
    """An archive."""
    import warnings

    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", kind) as archive:
        warnings.simplefilter("ignore")
        for name, content in members.items() if isinstance(members, dict) else members:
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return buffer.getvalue()


def _saved(array: object) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(array))
    return buffer.getvalue()


def _case(name: str, file: str, content: bytes) -> Case:
    def write(folder: Path) -> None:
        model(folder)
        (folder / file).write_bytes(content)

    return Case(name, f"{SLIM} {file}", write, ("bad", "m.onnx"))


def _folder(files: dict[str, bytes]) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        model(folder)
        (folder / "bad").mkdir()
        for name, content in files.items():
            (folder / "bad" / name).parent.mkdir(exist_ok=True)
            (folder / "bad" / name).write_bytes(content)

    return write


def _module(text: str) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        model(folder)
        (folder / "badmodule.py").write_text(text + "\n")

    return write


def cases() -> Iterator[Case]:
    """All cases of samples."""
    for make in (npy_cases, npz_cases, folder_cases, other_cases):
        yield from make()
