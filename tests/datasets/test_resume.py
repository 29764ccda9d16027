"""A run that is stopped at any moment and started again gives what an uninterrupted one gives."""

import filecmp
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, IterableDataset, TensorDataset

from seewhy import Explainer, Method, Needs, SeewhyWarning, datasets
from seewhy.datasets import writing
from seewhy.datasets.identity import _options
from seewhy.errors import InputError, StoreError
from seewhy.methods import IntegratedGradients, Occlusion, SmoothGrad
from seewhy.testing import small_cnn, unchanged

METHODS = ["grad_cam", "saliency"]
KILLS = 20


def images(count=40):
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(0))


def explainer(seed=0, **how):
    return Explainer(small_cnn(seed), class_names=list("abcde"), **how)


def files(folder):
    return {str(p.relative_to(folder)): p for p in sorted(Path(folder).rglob("*")) if p.is_file()}


def assert_same(one, other):
    """The same files with the same bytes."""
    ours, theirs = files(one), files(other)
    assert ours.keys() == theirs.keys()
    different = [name for name in ours if not filecmp.cmp(ours[name], theirs[name], shallow=False)]
    assert not different


def run(to, data=None, seed=0, **how):
    how = {"method": METHODS, "batch_size": 4, "chunk": 8, **how}
    return explainer(seed).run(images() if data is None else data, to=to, **how)


class Stops(Dataset):
    """Images that raise at one of them."""

    def __init__(self, data, at, error=KeyboardInterrupt):
        self.data, self.at, self.error = data, at, error

    def __len__(self):
        return len(self.data)

    def __getitem__(self, number):
        if number == self.at:
            raise self.error
        return self.data[number]


class Counted(Dataset):
    """Images that note which of them were read."""

    def __init__(self, data):
        self.data, self.read = data, []

    def __len__(self):
        return len(self.data)

    def __getitem__(self, number):
        self.read.append(number)
        return self.data[number]


KILLING = """
import os, random, signal, sys, time
import torch
torch.set_num_threads(1)
sys.path.insert(0, sys.argv[2])
import test_resume, zarr, pandas, pyarrow.parquet, filelock, seewhy.datasets
from pathlib import Path

folder = Path(sys.argv[1])

def start(to):
    child = os.fork()
    if not child:
        try:
            test_resume.run(to)
        finally:
            os._exit(0)
    return child

begun = time.time()
os.waitpid(start(folder / "whole.zarr"), 0)
took = time.time() - begun
dice, kills, name = random.Random(0), 0, 0
while kills < int(sys.argv[3]):
    child = start(folder / f"killed-{name}.zarr")
    time.sleep(dice.uniform(0, took / 2))
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        kills += 1
    else:
        name += 1
os.waitpid(start(folder / f"killed-{name}.zarr"), 0)
print(kills, name + 1)
"""


@pytest.mark.sweep
def test_killed_at_any_moment(tmp_path):
    """In a process that only forks, so that nothing has to be imported for each of them."""
    done = subprocess.run(
        [sys.executable, "-c", KILLING, tmp_path, Path(__file__).parent, str(KILLS)],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    kills, stores = map(int, done.stdout.split())
    assert kills == KILLS
    assert len(datasets.open(tmp_path / "whole.zarr")) == 40
    for i in range(stores):
        assert_same(tmp_path / f"killed-{i}.zarr", tmp_path / "whole.zarr")


@pytest.mark.parametrize("at", [0, 3, 8, 21, 38])
def test_interrupted(tmp_path, at):
    run(tmp_path / "whole.zarr")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "other.zarr", Stops(images(), at))
    if at >= 8:
        assert len(datasets.open(tmp_path / "other.zarr")) == at // 8 * 8
    run(tmp_path / "other.zarr", Stops(images(), None))
    for name in ("whole.zarr", "other.zarr"):
        (tmp_path / name / "zarr.json").unlink()  # it names the data set
    assert_same(tmp_path / "whole.zarr", tmp_path / "other.zarr")


def test_nothing_is_done_twice(tmp_path):
    data = Counted(images())
    with pytest.raises(ZeroDivisionError):
        run(tmp_path / "maps.zarr", Failing(data, 20))
    data.read.clear()
    run(tmp_path / "maps.zarr", Failing(data, None))
    probes = [0, 5, 11, 16, 22, 27, 33, 39]  # of what the data set is known by
    assert sorted(data.read) == sorted([*probes, 0, 1, 2, 3, *range(16, 40)])
    data.read.clear()
    run(tmp_path / "maps.zarr", Failing(data, None))
    assert sorted(data.read) == sorted([*probes, 0, 1, 2, 3])


class Failing(Dataset):
    """Other images, that fail once at one of them."""

    def __init__(self, data, at):
        self.data, self.at, self.asked = data, at, 0

    def __len__(self):
        return len(self.data)

    def __getitem__(self, number):
        self.asked += number == self.at
        if number == self.at and self.asked > 0:
            raise ZeroDivisionError
        return self.data[number]


def test_a_lost_chunk_is_made_again(tmp_path):
    run(tmp_path / "whole.zarr")
    shutil.copytree(tmp_path / "whole.zarr", tmp_path / "lost.zarr")
    (tmp_path / "lost.zarr" / "predictions" / "00000002.parquet").unlink()
    (tmp_path / "lost.zarr" / "values-0" / "c" / "2").rename(tmp_path / "gone")
    (tmp_path / "lost.zarr" / "values-1" / "c" / "2" / "half.partial").write_bytes(b"?")
    run(tmp_path / "lost.zarr")
    assert_same(tmp_path / "lost.zarr", tmp_path / "whole.zarr")


class Endless(IterableDataset):
    """Images without a known number."""

    def __init__(self, count):
        self.count = count

    def __iter__(self):
        return iter(images()[: self.count])


def test_a_data_set_of_unknown_length(tmp_path):
    whole = run(tmp_path / "whole.zarr", Endless(37))
    assert (len(whole), whole.count, whole.complete) == (37, None, False)
    for chunk in (1, 3, 4):
        (tmp_path / "whole.zarr" / "predictions" / f"{chunk:08d}.parquet").unlink()
    before = run(tmp_path / "again.zarr", Endless(37))
    assert_same(run(tmp_path / "whole.zarr", Endless(37)).path, before.path)


CHANGES = {
    "weights": ({"seed": 1}, "another model, or other weights"),
    "method": ({"method": ["grad_cam"]}, "other methods or options"),
    "layer": ({"layer": "left"}, "other layers"),
    "target": ({"target": 2}, "another target"),
    "batch_size": ({"batch_size": 8}, "another batch size"),
    "chunk": ({"chunk": 16}, "another number of images per chunk"),
    "pictures": ({"pictures": False}, "or without the pictures"),
    "count": ({"data": images()[:39]}, r"another data set.*count 40, now 39"),
    "images": ({"data": images().flip(0)}, "another data set"),
    "labels": ({"labels": [0] * 40}, "another data set"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_what_changed_is_noticed(tmp_path, change):
    how, expected = CHANGES[change]
    store = run(tmp_path / "maps.zarr")
    before = {name: path.stat().st_mtime_ns for name, path in files(store.path).items()}
    with pytest.raises(StoreError, match=expected):
        run(tmp_path / "maps.zarr", **how)
    assert {name: path.stat().st_mtime_ns for name, path in files(store.path).items()} == before


def test_an_array_among_the_options_is_known_by_all_its_values():
    one = torch.zeros(3, 40, 40)
    other = one.clone()
    other[1, 20, 20] = 1  # which does not show in its text
    said = [_options(Occlusion(baseline=array)) for array in (one, one.clone(), other, one.numpy())]
    assert said[0] == said[1] == said[3] != said[2]
    nested = [_options(SmoothGrad(IntegratedGradients(baseline=array))) for array in (one, other)]
    assert nested[0] != nested[1]


def test_other_class_names_and_another_transform_are_noticed(tmp_path):
    run(tmp_path / "maps.zarr")
    with pytest.raises(StoreError, match="other class names"):
        Explainer(small_cnn(), class_names=list("vwxyz")).run(images(), METHODS, to=tmp_path / "maps.zarr")
    with pytest.raises(StoreError, match="another transform"):
        explainer(transform=lambda photo: photo).run(images(), METHODS, to=tmp_path / "maps.zarr")


class Times(Method):
    """A method whose code can change without its name."""

    factor = 1.0
    needs = Needs(activation=True)

    def compute(self, record):
        return self.factor * record.activation.mean(1)


def test_a_methods_changed_code_is_noticed(tmp_path, monkeypatch):
    run(tmp_path / "maps.zarr", method=Times())
    monkeypatch.setattr(Times, "factor", 1.5)
    with pytest.raises(StoreError, match=r"the first images now give other results \(values 0\)"):
        run(tmp_path / "maps.zarr", method=Times())


def test_what_is_read_otherwise_is_noticed(tmp_path):
    run(tmp_path / "maps.zarr")
    for how in ({"activation": "sigmoid"}, {"output": lambda scores: scores.roll(1, 1)}):
        with pytest.raises(StoreError, match="the first images now give other results"):
            explainer(**how).run(images(), METHODS, to=tmp_path / "maps.zarr")


def test_a_random_data_set_is_noticed(tmp_path):
    class Noise(Dataset):
        def __len__(self):
            return 40

        def __getitem__(self, number):
            return torch.rand(3, 16, 24)

    torch.manual_seed(0)
    run(tmp_path / "maps.zarr", Noise())
    torch.manual_seed(1)
    with pytest.raises(StoreError, match="random augmentation"):
        run(tmp_path / "maps.zarr", Noise())


@pytest.mark.parametrize("kind", [lambda x: x, lambda x: x.permute(0, 2, 3, 1).numpy(), TensorDataset])
def test_a_pixel_that_changed_is_noticed(tmp_path, kind):
    data = images()
    how = {"transform": lambda photo: torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255}
    explainer(**how).run(kind(data), METHODS, to=tmp_path / "maps.zarr", batch_size=4)
    data[30, 1, 1, 1] = 0.5
    with pytest.raises(StoreError, match="another data set"):
        explainer(**how).run(kind(data), METHODS, to=tmp_path / "maps.zarr", batch_size=4)


def test_a_file_that_changed_is_noticed(tmp_path):
    from PIL import Image

    def photos(value):
        paths = [tmp_path / f"{i}.png" for i in range(4)]
        for path in paths:
            if not path.exists() or path.name == "2.png":
                Image.new("RGB", (24, 16), (value, 0, 0)).save(path)
        return paths

    to_tensor = {"transform": lambda photo: torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255}
    explainer(**to_tensor).run(photos(100), to=tmp_path / "maps.zarr")
    explainer(**to_tensor).run(photos(100)[:4], to=tmp_path / "again.zarr")
    with pytest.raises(StoreError, match="another data set: other files"):
        explainer(**to_tensor).run(photos(250), to=tmp_path / "maps.zarr")


def test_the_same_batch_size_and_chunk_are_taken_where_none_is_given(tmp_path):
    run(tmp_path / "maps.zarr")
    assert len(explainer().run(images(), METHODS, to=tmp_path / "maps.zarr")) == 40


@pytest.mark.sweep
def test_two_runs_on_one_store(tmp_path):
    waiting, go = threading.Event(), threading.Event()

    class Slow(Counted):
        def __getitem__(self, number):
            if number == 20:
                waiting.set()
                go.wait(30)
            return self.data[number]

    problems = []

    def first():
        try:
            run(tmp_path / "maps.zarr", Slow(images()))
        except BaseException as error:
            problems.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    assert waiting.wait(30)
    with pytest.raises(StoreError, match="Another run is writing to"):
        run(tmp_path / "maps.zarr")
    reader = "import sys, seewhy; print(len(seewhy.datasets.open(sys.argv[1])))"
    if (tmp_path / "maps.zarr" / "zarr.json").exists():
        seen = subprocess.run([sys.executable, "-c", reader, tmp_path / "maps.zarr"], capture_output=True, text=True)
        assert seen.returncode == 0, seen.stderr
    go.set()
    thread.join(60)
    assert not problems
    assert len(datasets.open(tmp_path / "maps.zarr")) == 40


LIMITED = """
import resource, signal, sys
sys.path.insert(0, sys.argv[2])
import torch
torch.set_num_threads(1)
import test_resume
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
try:
    test_resume.run(sys.argv[1], chunk=16)
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.sweep
def test_a_disk_that_takes_no_more(tmp_path):
    """The system refuses to write beyond a size, as it does where the disk is full."""
    to = tmp_path / "maps.zarr"
    how = {"capture_output": True, "text": True}
    for limit in (3000, 30_000):
        done = subprocess.run([sys.executable, "-c", LIMITED, to, Path(__file__).parent, str(limit)], **how)
        assert done.stdout.startswith("StoreError The store"), done.stdout + done.stderr
        assert "cannot be written: File too large" in done.stdout
        assert "stays readable" in done.stdout
    run(to, chunk=16)
    assert_same(to, run(tmp_path / "whole.zarr", chunk=16).path)


def test_a_full_disk_half_way(tmp_path, monkeypatch):
    """What was written stays readable, and the same run goes on."""
    real, calls = writing.Writer._write, []

    def full(self, name, rows, start):
        calls.append(name)
        if len(calls) == 8:
            raise OSError(28, "No space left on device")
        real(self, name, rows, start)

    monkeypatch.setattr(writing.Writer, "_write", full)
    model = small_cnn()
    with unchanged(model), pytest.raises(StoreError, match="No space left on device"):
        Explainer(model, class_names=list("abcde")).run(
            images(), METHODS, to=tmp_path / "a.zarr", batch_size=4, chunk=8
        )
    half = datasets.open(tmp_path / "a.zarr")
    assert (len(half), half.complete) == (16, False)
    assert np.isfinite(half[15]["saliency"].values).all()
    assert_same(run(tmp_path / "a.zarr").path, run(tmp_path / "b.zarr").path)


def test_where_nothing_can_be_written(tmp_path):
    with pytest.raises(StoreError, match="cannot be written"):
        run("/proc/seewhy/maps.zarr")
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StoreError, match="is no store of maps"):
        run(tmp_path / "file")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "thesis.tex").write_text("mine")
    with pytest.raises(StoreError, match="is no store of maps"):
        run(tmp_path / "folder")
    for lock in (".lock", writing.LOCK):  # another program's, or ours beside what is not
        (tmp_path / "folder" / lock).touch()
        with pytest.raises(StoreError, match="is no store of maps"):
            run(tmp_path / "folder")
    assert (tmp_path / "folder" / "thesis.tex").read_text() == "mine"


def test_mistakes(tmp_path):
    to = tmp_path / "maps.zarr"
    with pytest.raises(InputError, match="name a method"):
        run(to, method=[])
    with pytest.raises(InputError, match="whole batches of 4"):
        run(to, chunk=6)
    with pytest.raises(InputError, match="in the same order each time"):
        run(to, iter(images()))
    with pytest.raises(InputError, match="differ in size"):
        run(to, [*images(12), torch.rand(3, 20, 24)])


def test_what_cannot_be_read_is_noted_in_its_place(tmp_path):
    data = [*images(10)]
    data[3], data[8] = "missing.png", "absent.png"
    with pytest.warns(SeewhyWarning, match="2 images could not be read"):
        store = run(tmp_path / "maps.zarr", data)
    assert store.numbers.tolist() == [0, 1, 2, 4, 5, 6, 7, 9]
    assert [(one.number, one.source) for one in store.skipped] == [(3, "missing.png"), (8, "absent.png")]
    whole = run(tmp_path / "whole.zarr", images(10))
    assert np.allclose(store[7]["saliency"].values, whole[9]["saliency"].values, atol=1e-6)
    assert store.complete


@pytest.mark.filterwarnings("ignore::seewhy.errors.SeewhyWarning")
@pytest.mark.parametrize("missing", [range(4), range(8), range(8, 16), range(12, 16), range(32, 40), range(36, 40)])
def test_batches_and_chunks_of_which_nothing_can_be_read(tmp_path, missing):
    data = [("gone.png" if i in missing else image) for i, image in enumerate(images())]
    store = run(tmp_path / "whole.zarr", data)
    assert store.complete
    assert store.numbers.tolist() == [i for i in range(40) if i not in missing]
    shutil.copytree(store.path, tmp_path / "lost.zarr")
    for chunk in (1, 4):
        (tmp_path / "lost.zarr" / "predictions" / f"{chunk:08d}.parquet").unlink()
    assert_same(run(tmp_path / "lost.zarr", data).path, store.path)


def test_blank_maps_are_counted_once(tmp_path):
    """Also where the first images are made again, to be compared."""
    labels = {"target": datasets.TrueClass(), "labels": [0, 1, 2, 3, 4] * 8, "method": "grad_cam"}
    with pytest.warns(SeewhyWarning, match="is 0 everywhere for"):
        run(tmp_path / "maps.zarr", **labels)
    store = datasets.open(tmp_path / "maps.zarr")
    blank = ~store[8:]["grad_cam"].maps.any((1, 2))
    for chunk in (1, 2, 3, 4):
        (tmp_path / "maps.zarr" / "predictions" / f"{chunk:08d}.parquet").unlink()
    with pytest.warns(SeewhyWarning, match=f"is 0 everywhere for {blank.sum()} images"):
        run(tmp_path / "maps.zarr", **labels)
