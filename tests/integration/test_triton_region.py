"""Shared memory lent as arrays: who drops the array gives the memory back, whatever way it comes about."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from samgate.engines.triton.region import SHARED_MEMORY, Region, Regions, remove_abandoned
from support import in_small_shared_memory

MIB = 2**20


@pytest.fixture
def region() -> Iterator[Region]:
    one = Region(16 * MIB)
    yield one
    one.close()


def test_what_is_written_is_seen_by_who_maps_the_name(region: Region) -> None:
    (first,) = region.lend((3, 1000), np.float32) or []
    (array,) = region.lend((2, MIB), np.uint8) or []
    array[:] = np.arange(2)[:, None] + 7
    offset = region.offset_of(array)
    assert offset is not None
    with (SHARED_MEMORY / region.name).open("r+b") as file, mmap.mmap(file.fileno(), region.size) as seen:
        assert seen[offset] == 7
        assert seen[offset + MIB] == 8
    assert region.offset_of(first) == 0


def test_views_keep_memory_and_the_last_one_gives_it_back(region: Region) -> None:
    (array,) = region.lend((4, MIB), np.uint8) or []
    view = array[2:3, :10].T
    del array
    assert region.lent_bytes == 4 * MIB
    del view
    assert region.lent_bytes == 0


def test_arrays_side_by_side_are_given_back_one_by_one(region: Region) -> None:
    arrays = region.lend((256, 64, 64), np.float32, count=4) or []
    assert [region.offset_of(array) for array in arrays] == [0, 4 * MIB, 8 * MIB, 12 * MIB]
    assert region.lend((1,), np.uint8) is None
    del arrays[1]
    (between,) = region.lend((MIB,), np.float32) or []
    assert region.offset_of(between) == 4 * MIB
    with pytest.raises(ValueError, match="fill pages"):
        region.lend((100,), np.uint8, count=2)


def test_other_threads_may_drop_arrays(region: Region) -> None:
    def use(count: int) -> None:
        while lent and count:
            lent.pop()
            count -= 1

    for _ in range(20):
        lent = region.lend((64, 1024), np.uint8, count=200) or []
        threads = [threading.Thread(target=use, args=(50,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert region.lent_bytes == 0


def test_place_copies_only_what_lies_elsewhere(region: Region) -> None:
    outside = np.arange(10_000, dtype=np.float32)
    inside = region.place(outside)
    assert inside is not None
    assert np.array_equal(inside, outside)
    assert region.place(inside) is inside
    assert region.place(inside[::2]) is not inside
    assert region.place(np.zeros(17 * MIB, np.uint8)) is None


def test_what_rests_is_out_until_its_time(region: Region) -> None:
    region.rest(region.lend((MIB,), np.uint8) or [], 60)
    region.rest(region.lend((MIB,), np.uint8) or [], 0)
    assert region.lent_bytes == 2 * MIB
    region = Region(MIB)
    region.rest(region.lend((MIB,), np.uint8) or [], 0)
    assert region.lent_bytes == 0
    region.close()


def test_the_name_goes_at_the_end_and_arrays_stay() -> None:
    regions = Regions(4 * MIB)
    region = regions.current()
    assert region is not None
    (array,) = region.lend((MIB,), np.uint8) or []
    regions.retire()
    assert not (SHARED_MEMORY / region.name).exists()
    array[:] = 5
    assert int(array.sum()) == 5 * MIB
    another = regions.current()
    assert another is not None
    assert another.offset_of(array) is None
    regions.retire()


def test_no_shared_memory_is_no_disaster(tmp_path: Path) -> None:
    assert Regions(0).current() is None
    with pytest.raises(FileNotFoundError):
        Region(MIB, tmp_path / "missing")


def test_a_full_file_system_lends_nothing() -> None:
    program = f"""
import numpy as np
from samgate.engines.triton.region import Region
region = Region(64 * {MIB})
kept = region.lend((2 * {MIB},), np.uint8)
kept[0][:] = 1
assert region.lend((8 * {MIB},), np.uint8) is None
assert region.lent_bytes == 2 * {MIB}, region.lent_bytes
region.lend(({MIB},), np.uint8)[0][:] = 1
"""
    in_small_shared_memory([sys.executable, "-c", program], mebibytes=4)


def test_regions_of_killed_processes_are_removed_and_live_ones_stay(region: Region) -> None:
    program = """
import os
from samgate.engines.triton.region import Region
region = Region(64)
print(region.name, flush=True)
os._exit(9)
"""
    name = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True).stdout.strip()
    assert name.startswith("samgate-gateway-")
    left = SHARED_MEMORY / name
    assert left.exists()
    assert remove_abandoned(min_age_s=3600) == 0
    os.utime(left, (1, 1))
    os.utime(SHARED_MEMORY / region.name, (1, 1))
    assert remove_abandoned() >= 1
    assert not left.exists()
    assert (SHARED_MEMORY / region.name).exists()
