"""Networks pickled whole: read as data, whatever the pickle would have done."""

from __future__ import annotations

import collections
import functools
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from samgate.errors import WeightsError
from samgate.weights import inert_pickle
from samgate.weights.modules_file import read_module

WRITERS = """
import torch
from torch import nn

class Layer(nn.Linear):
    def __init__(self):
        super().__init__(3, 2)
        self.mode, self.bits, self.window = "quant_forward", 8, [7, 14]
        self.act = nn.GELU()
        self.stride = torch.tensor([8.0, 16.0])
        self.register_buffer("interval", torch.tensor(0.25))
        self.register_buffer("derived", torch.zeros(5), persistent=False)
        self.register_parameter("absent", None)

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList((Layer(), Layer()))
        self.norm = nn.BatchNorm1d(2)
        self.shared = self.layers[0]
        self.weight = nn.Parameter(torch.arange(12.0).reshape(3, 4).t()[1:])
"""
"""Classes that only the writer of a file has."""


def saved(content: Any, *, legacy: bool = False) -> bytes:
    buffer = io.BytesIO()
    torch.save(content, buffer, _use_new_zipfile_serialization=not legacy)
    return buffer.getvalue()


def file(folder: Path, content: bytes) -> Path:
    path = folder / "net.pt"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("legacy", [False, True])
@pytest.mark.filterwarnings("ignore:Couldn't retrieve source code")
def test_a_network_is_read_without_its_classes(tmp_path: Path, legacy: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as known:
        writers = types.ModuleType("writers")
        known.setitem(sys.modules, "writers", writers)
        exec(WRITERS, writers.__dict__)
        network = writers.Net().eval()
        path = file(tmp_path, saved(network, legacy=legacy))
    found = read_module(path)
    assert "writers" not in sys.modules
    expected = network.state_dict()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name
    others = {name: value for name, value in found.items() if name not in expected}
    assert others["layers.1.mode"] == "quant_forward"
    assert (others["layers.1.bits"], others["layers.1.window"], others["training"]) == (8, (7, 14), False)
    assert others["layers.0.stride"].tolist() == [8.0, 16.0]
    assert not any("derived" in name or "absent" in name or "._" in name for name in others)


@pytest.mark.parametrize("legacy", [False, True])
def test_what_a_dict_holds_is_there_by_its_keys(tmp_path: Path, legacy: bool) -> None:
    content = {"model": nn.Linear(2, 1).half(), "epoch": 3, "names": {0: "object"}, "none": None, "ema": object}
    found = read_module(file(tmp_path, saved(content, legacy=legacy)))
    assert found["model.weight"].dtype == torch.float16
    assert (found["epoch"], found["names.0"], found["model.in_features"]) == (3, "object", 2)
    assert not {"none", "ema"} & found.keys()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8])
def test_every_type_of_numbers(tmp_path: Path, dtype: torch.dtype) -> None:
    value = torch.arange(-3, 3).to(dtype)
    found = read_module(file(tmp_path, saved({"a": value, "empty": value[:0].reshape(0, 4)})))
    assert torch.equal(found["a"], value)
    assert found["empty"].shape == (0, 4)


# What follows is written by hand: each pickle would run something, were it loaded.

ALARM = "import os; os.environ['SAMGATE_TEST_RAN'] = '1'"


class Calls:
    """Pickles as a call of ``function``."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.what = (function, arguments)

    def __reduce__(self) -> Any:
        return self.what


HOSTILE = {
    "exec": Calls(exec, ALARM),
    "eval": Calls(eval, "__import__('os').environ.update(SAMGATE_TEST_RAN='1')"),
    "system": Calls(os.system, "touch samgate-ran"),
    "import": Calls(__import__, "antigravity"),
    "partial": Calls(functools.partial, exec, ALARM),
    "map": Calls(list, Calls(map, os.system, ["touch samgate-ran"])),
    "a tensor's function": Calls(torch._utils._rebuild_tensor_v2, Calls(exec, ALARM), 0, (1,), (1,), False, None),
    "a parameter's function": Calls(torch._utils._rebuild_parameter, Calls(exec, ALARM), True, None),
    "in a map": collections.OrderedDict({"weight": Calls(exec, ALARM)}),
    "map of a call": Calls(collections.OrderedDict, [Calls(exec, ALARM)]),
}


CHAIN = (
    b"\x80\x02}U\x03bad"  # getattr(__import__("os"), "system")("touch samgate-ran")
    b"cbuiltins\ngetattr\nc__builtin__\n__import__\nU\x02os\x85RU\x06system\x86RU\x11touch samgate-ran\x85Rs."
)
CHANGES = b"\x80\x02}U\x03badctorch._utils\n_rebuild_tensor_v2\nN}U\x0c__defaults__K\x01\x85s\x86bs."
"""The state of a function is set."""


def archive(content: bytes, storages: dict[str, bytes] | None = None) -> bytes:
    """A file as ``torch.save`` makes it, with this pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as made:
        made.writestr("net/data.pkl", content)
        for name, value in (storages or {}).items():
            made.writestr(f"net/data/{name}", value)
    return buffer.getvalue()


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("name", HOSTILE)
def test_nothing_is_run(tmp_path: Path, name: str, protocol: int, monkeypatch: pytest.MonkeyPatch) -> None:
    works = name not in ("a tensor's function", "a parameter's function")
    content = pickle.dumps({"bad": HOSTILE[name], "good": "kept"}, protocol)
    monkeypatch.delenv("SAMGATE_TEST_RAN", raising=False)
    monkeypatch.chdir(tmp_path)
    path = file(tmp_path, archive(content))
    with nullcontext() if works else pytest.raises(WeightsError, match="bad is a tensor of no plain kind"):
        assert read_module(path) == {"good": "kept"}
    assert "antigravity" not in sys.modules
    assert "SAMGATE_TEST_RAN" not in os.environ
    assert list(tmp_path.iterdir()) == [path]


def test_what_a_call_gave_is_not_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = file(tmp_path, archive(CHAIN))
    with pytest.raises(WeightsError, match="something is called that has no name"):
        read_module(path)
    assert list(tmp_path.iterdir()) == [path]


def test_nothing_is_changed(tmp_path: Path) -> None:
    assert read_module(file(tmp_path, archive(CHANGES))) == {}
    assert torch._utils._rebuild_tensor_v2.__defaults__ == (None,)


def tensor_of(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, kind: Any = torch.FloatStorage) -> bytes:
    """A pickled tensor on a storage ``0``."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: Any) -> Any:
            return ("storage", kind, "0", "cpu", 4) if isinstance(obj, str) and obj == "numbers" else None

    buffer = io.BytesIO()
    Pickler(buffer, 2).dump({"a": Calls(torch._utils._rebuild_tensor_v2, "numbers", offset, size, stride, False, None)})
    return buffer.getvalue()


FOUR = {"0": struct.pack("<4f", 1, 2, 3, 4)}


def test_a_tensor_is_a_view_of_what_is_stored(tmp_path: Path) -> None:
    found = read_module(file(tmp_path, archive(tensor_of((2, 2), (1, 2)), FOUR)))
    assert found["a"].tolist() == [[1, 3], [2, 4]]


@pytest.mark.parametrize(
    ("size", "stride", "offset"),
    [
        ((5,), (1,), 0),
        ((2,), (1,), 3),
        ((1 << 40,), (0,), 0),
        ((2,), (-1,), 2),
        ((1 << 60,), (1,), 0),
        ((2, 2), (1,), 0),
    ],
)
def test_a_tensor_beyond_its_storage_is_refused(
    tmp_path: Path, size: tuple[int, ...], stride: tuple[int, ...], offset: int
) -> None:
    with pytest.raises(WeightsError, match=r"a is larger than|a is a tensor of no plain kind"):
        read_module(file(tmp_path, archive(tensor_of(size, stride, offset), FOUR)))


def test_storages_of_other_kinds_are_refused(tmp_path: Path) -> None:
    for kind in (os.system, torch.QInt8Storage, "torch.FloatStorage"):
        with pytest.raises(WeightsError, match="a storage of no plain kind"):
            read_module(file(tmp_path, archive(tensor_of((1,), (1,), kind=kind), FOUR)))


def nested(levels: int, doubled: bool) -> Any:
    value: Any = []
    for _ in range(levels):
        value = [value, value] if doubled else [value]
    return value


@pytest.mark.parametrize(
    "content",
    [
        pickle.dumps(nested(40, doubled=True), 2),
        pickle.dumps(nested(100, doubled=False), 2),
        pickle.dumps({"a" * 2000: 1}, 2),
        b"\x80\x02]q\x00(h\x00h\x00e.",  # a list of itself
        pickle.dumps([list(range(1000))] * 5000, 2),
    ],
    ids=["doubled", "deep", "long name", "cycle", "repeated"],
)
def test_what_grows_when_it_is_looked_at_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(WeightsError, match="it has more than"):
        read_module(file(tmp_path, archive(content)))


def test_a_pickle_that_claims_or_has_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inert_pickle, "MAX_PICKLE_BYTES", 1000)
    claims = b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b"abc."
    for content in (pickle.dumps(["x" * 2000], 2), claims, b"\x80\x02" + b"]" * 2000 + b".", b"\x80\x02", b""):
        with pytest.raises(WeightsError, match="damaged"):
            read_module(file(tmp_path, archive(content)))


@pytest.mark.parametrize(
    "content",
    [
        b"0.",
        b".",
        b"\x80\x02e.",
        b"\x80\x02R.",
        b"\x80\x02NNR.",
        b"\x80\x02h\x07.",
        b"\x80\x02\x82\x01.",
        b"\x80\x02NQ",
        b"\xff",
    ],
)
def test_damaged_pickles_are_refused(tmp_path: Path, content: bytes) -> None:
    for made in (archive(content), content, b"\x80\x02" + content):
        with pytest.raises(WeightsError, match=r"net\.pt can't be read as a file of torch"):
            read_module(file(tmp_path, made))


def test_archives_that_are_no_files_of_torch_are_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as made:
        made.writestr("net/data.pkl", pickle.dumps({}))
        made.writestr("net/data/0", bytes(1 << 20))
    with pytest.raises(WeightsError, match="unpack to more"):
        read_module(file(tmp_path, buffer.getvalue()))
    with pytest.raises(WeightsError, match=r"without data\.pkl"):
        read_module(file(tmp_path, archive(b"N.").replace(b"data.pkl", b"data.pik")))
    with pytest.raises(WeightsError, match="can't be read"):
        read_module(file(tmp_path, archive(tensor_of((4,), (1,)))))  # the storage is missing


def test_files_that_break_off_are_refused(tmp_path: Path) -> None:
    for legacy in (False, True):
        content = saved({"a": torch.ones(1000)}, legacy=legacy)
        for length in (0, 10, len(content) // 2, len(content) - 3000):
            with pytest.raises(WeightsError, match="can't be read"):
                read_module(file(tmp_path, content[:length]))
