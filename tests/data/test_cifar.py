"""CIFAR in both its versions; the pickles of one of them are read as plain data, or refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fusionrun.data.header import read_summary
from fusionrun.data.load import load_data
from fusionrun.data.plain_pickle import PlainArray, load_plain
from fusionrun.errors import DataError, RecipeError
from fusionrun.recipe.read import read_recipe
from fusionrun.schema.image_data import Cifar
from tests.data.written import images, write_cifar10, write_cifar100, write_python2

VERSIONS = {
    ("bin", 10): "cifar-10-batches-bin",
    ("py", 10): "cifar-10-batches-py",
    ("bin", 100): "cifar-100-binary",
    ("py", 100): "cifar-100-python",
}


def cifar(classes: int = 10, **more: Any) -> Cifar:
    return Cifar.model_validate({"source": "cifar", "path": "data", "classes": classes, **more})


def written(folder: Path, version: str = "bin", classes: int = 10) -> np.ndarray:
    write = write_cifar10 if classes == 10 else write_cifar100
    return write(folder / "data" / VERSIONS[version, classes], version)


@pytest.mark.parametrize(("version", "classes"), VERSIONS)
def test_every_version_gives_the_images_that_were_written(
    tmp_path: Path, version: str, classes: int
) -> None:
    train = written(tmp_path, version, classes)
    data = cifar(classes, split={"val": 0.0})
    summary = read_summary(data, tmp_path)
    assert summary.views == {"image": (3, 32, 32)}
    assert summary.classes == tuple(range(classes))
    assert summary.sizes["train"] == len(train)
    rows = load_data(data, summary)["train"]
    assert np.array_equal(rows.views["image"], train)
    assert rows.labels.tolist() == [row % 20 % 10 if classes == 10 else row % 100
                                    for row in range(len(train))]  # fmt: skip


@pytest.mark.parametrize("version", ["bin", "py"])
def test_coarse_labels_are_the_twenty_groups(tmp_path: Path, version: str) -> None:
    written(tmp_path, version, 100)
    data = cifar(100, labels="coarse", split={"val": 0.0})
    summary = read_summary(data, tmp_path)
    assert summary.classes == tuple(range(20))
    assert load_data(data, summary)["train"].labels[:12].tolist() == [0] * 5 + [1] * 5 + [2] * 2


def test_coarse_labels_of_ten_classes_are_refused_and_not_offered(tmp_path: Path) -> None:
    text = (
        "version: 1\nname: x\nexperts: {one: {model: mlp, view: image}}\n"
        "fusion: {type: multiplicative}\ndata: {source: cifar, path: c, labels: coarse}\n"
    )
    (tmp_path / "r.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(RecipeError, match=r"only CIFAR-100 has coarse labels too$"):
        read_recipe(tmp_path / "r.yaml")


def test_path_may_be_the_directory_itself(tmp_path: Path) -> None:
    write_cifar10(tmp_path / "data")
    assert read_summary(cifar(), tmp_path).rows == 120


def test_files_of_the_other_cifar_are_not_taken(tmp_path: Path) -> None:
    written(tmp_path, "bin", 100)
    with pytest.raises(DataError, match=r"(?s)no files of CIFAR-10 .*got       cifar-100-binary"):
        read_summary(cifar(), tmp_path)


def test_a_missing_batch_is_named(tmp_path: Path) -> None:
    written(tmp_path)
    (tmp_path / "data" / VERSIONS["bin", 10] / "data_batch_3.bin").unlink()
    with pytest.raises(DataError, match=r"(?s)is not whole.*no data_batch_3\.bin"):
        read_summary(cifar(), tmp_path)


def test_a_file_that_is_cut_short_is_refused(tmp_path: Path) -> None:
    written(tmp_path)
    file = tmp_path / "data" / VERSIONS["bin", 10] / "data_batch_3.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"(?s)data_batch_3\.bin .*expected  a multiple of 3,073"):
        read_summary(cifar(), tmp_path)


def test_labels_out_of_range_are_refused(tmp_path: Path) -> None:
    written(tmp_path)
    file = tmp_path / "data" / VERSIONS["bin", 10] / "test_batch.bin"
    file.write_bytes(b"\x0b" + file.read_bytes()[1:])
    with pytest.raises(DataError, match=r"(?s)test_batch\.bin.*got       the label 11"):
        read_summary(cifar(), tmp_path)


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_arrays_of_any_numpy_are_read_without_numpy(tmp_path: Path, protocol: int) -> None:
    pixels = images(3, 7)
    held = {"data": pixels, b"raw": b"\x00\xff", b"none": b"", "n": [1, (2.5, None)], "text": "é"}
    (tmp_path / "held").write_bytes(pickle.dumps(held, protocol))
    found = load_plain(tmp_path / "held")
    assert found.pop("data") == PlainArray((3, 7), pixels.tobytes())
    del held["data"]
    assert found == held


class Calls:
    """Something that has a function called when a pickle of it is read."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
@pytest.mark.parametrize(
    "function", [os.system, eval, subprocess.check_call], ids=["system", "eval", "check_call"]
)
def test_a_pickle_that_would_run_code_is_refused_and_does_nothing(
    tmp_path: Path, function: Callable[..., Any], protocol: int
) -> None:
    canary = tmp_path / "canary"
    order: Any = {
        os.system: f"touch {canary}",
        eval: f"__import__('pathlib').Path({str(canary)!r}).touch()",
    }.get(function, ["touch", str(canary)])
    content = pickle.dumps({b"labels": [0], b"data": Calls(function, order)}, protocol)
    pickle.loads(content)
    assert canary.exists()  # it would have
    canary.unlink()
    (tmp_path / "evil").write_bytes(content)
    with pytest.raises(DataError, match=rf"(?s)is refused.*asks for .*{function.__name__}"):
        load_plain(tmp_path / "evil")
    assert not canary.exists()


def test_a_malicious_batch_is_refused_by_the_plan(tmp_path: Path) -> None:
    written(tmp_path, "py")
    canary = tmp_path / "canary"
    file = tmp_path / "data" / VERSIONS["py", 10] / "data_batch_2"
    write_python2(file, Calls(os.system, f"touch {canary}"))
    with pytest.raises(DataError, match=r"(?s)data_batch_2 is refused.*posix\.system"):
        read_summary(cifar(), tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"cnumpy.core.multiarray\n_reconstruct\n(tR.",  # an array that never got content
        b"cnumpy\nndarray\n(tR.",
        b"cnumpy\ndtype\n(VO8\ntR.",  # an array of objects would hold anything
        b"cnumpy.core.multiarray\nscalar\n(tR.",
        b"Psomewhere\n.",
        b"\x80\x04\x95",
        b"not a pickle",
        b"",
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "odd").write_bytes(content)
    with pytest.raises(DataError, match=r"odd is (refused|damaged)"):
        load_plain(tmp_path / "odd")


_IMPORTS = """
import sys
from pathlib import Path
from fusionrun.data.header import read_summary
from fusionrun.schema.image_data import Cifar
before = set(sys.modules)
read_summary(Cifar(source="cifar", path="data"), Path({folder!r}))
sys.exit(", ".join(sorted({{"numpy", "torch"}} & set(sys.modules))))
"""


@pytest.mark.parametrize("version", ["bin", "py"])
def test_a_plan_of_either_version_needs_no_numpy(tmp_path: Path, version: str) -> None:
    written(tmp_path, version)
    command = [sys.executable, "-c", _IMPORTS.format(folder=str(tmp_path))]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
