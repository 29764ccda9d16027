"""Which file an image comes from."""

from pathlib import Path

import pytest
from torch.utils.data import ConcatDataset, Dataset, Subset

from seewhy.datasets.sources import source_of


class Listed(Dataset):
    def __init__(self, name, listed):
        setattr(self, name, listed)
        self.count = 3

    def __len__(self):
        return self.count

    def __getitem__(self, number):
        return number


FILES = [Path("a.png"), "b.png", "c.png"]


@pytest.mark.parametrize("name", ["samples", "imgs", "image_paths", "paths", "files"])
def test_data_sets_that_list_their_files(name):
    for listed in (FILES, [(file, 0) for file in FILES]):
        assert [source_of(Listed(name, listed), i) for i in range(3)] == ["a.png", "b.png", "c.png"]
    assert source_of(Listed(name, FILES[:2]), 0) is None  # not one for each image
    assert source_of(Listed(name, [1, 2, 3]), 0) is None


def test_parts_of_parts():
    whole = ConcatDataset([Listed("files", FILES), Subset(Listed("files", FILES), [2, 0])])
    assert [source_of(whole, i) for i in range(5)] == ["a.png", "b.png", "c.png", "c.png", "a.png"]
    assert source_of(Subset(whole, [4]), 0) == "a.png"


def test_lists():
    assert source_of(FILES, 0) == "a.png"
    assert source_of([("a.png", 3)], 0) == "a.png"
    assert source_of([{"image": "a.png"}], 0) is None
    assert source_of([[]], 0) is None
