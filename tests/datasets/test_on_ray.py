"""The same store by Ray, on this machine."""

import filecmp
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset, IterableDataset

from seewhy import Explainer, SeewhyWarning, datasets
from seewhy.datasets import on_ray
from seewhy.errors import ImageFileError, InputError, InputTypeError, StoreError
from seewhy.testing import small_cnn

pytestmark = pytest.mark.sweep
METHODS = ["grad_cam", "saliency"]


@pytest.fixture(scope="module", autouse=True)
def cluster():
    ray = pytest.importorskip("ray")
    here = Path(__file__).parent
    env = {"env_vars": {"PYTHONPATH": str(here), "OMP_NUM_THREADS": "1"}}
    ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, runtime_env=env)
    yield ray
    ray.shutdown()


def make():
    torch.set_num_threads(1)
    return Explainer(small_cnn(), class_names=list("abcde"))


def images(count=40):
    return torch.rand(count, 3, 16, 24, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return run(tmp_path_factory.mktemp("whole") / "maps.zarr")


HOW = {"batch_size": 4, "chunk": 8, "labels": [0, 1, 2, 3, 4] * 8}


def run(to, data=None):
    return make().run(images() if data is None else data, METHODS, to=to, **HOW)


def on_two(to, data=None, made=make, **how):
    data = images() if data is None else data
    return datasets.run_on_ray(data, made, METHODS, to=to, actors=2, **{**HOW, **how})


def assert_same(one, other, but=()):
    ours, theirs = (
        {str(p.relative_to(folder)): p for p in folder.rglob("*") if p.is_file() and p.name not in but}
        for folder in (one, other)
    )
    assert ours.keys() == theirs.keys()
    assert not [name for name in ours if not filecmp.cmp(ours[name], theirs[name], shallow=False)]


def test_two_actors_write_what_one_process_writes(tmp_path, whole):
    store = on_two(tmp_path / "maps.zarr")
    assert len(store) == 40
    assert_same(store.path, whole.path)


def test_it_goes_on_where_a_run_was_stopped(tmp_path, whole):
    store = on_two(tmp_path / "maps.zarr")
    for chunk in (1, 3):
        (store.path / "predictions" / f"{chunk:08d}.parquet").unlink()
    kept = (store.path / "values-0" / "c" / "0" / "0" / "0").stat().st_mtime_ns
    assert_same(on_two(tmp_path / "maps.zarr").path, whole.path)
    assert (store.path / "values-0" / "c" / "0" / "0" / "0").stat().st_mtime_ns == kept


class Named(Dataset):
    """Images whose labels are indices of names in another order than the network's."""

    classes = tuple("edcba")

    def __len__(self):
        return 8

    def __getitem__(self, number):
        return images(8)[number], number % 5


def test_labels_mean_what_the_data_set_says(tmp_path):
    with pytest.warns(SeewhyWarning, match="0 everywhere for 2 images"):  # counted by the actors
        store = on_two(tmp_path / "maps.zarr", Named(), labels=None, target=datasets.TrueClass())
    assert store.predictions["label"].tolist() == list("edcbaedc")
    assert store[:]["saliency"].target_names == tuple("edcbaedc")


class Killed(nn.Module):
    """A network whose process is killed at the third batch, once."""

    def __init__(self, marker, owner):
        super().__init__()
        self.inner, self.marker, self.owner, self.calls = small_cnn(), marker, owner, 0

    def forward(self, x):
        self.calls += 1
        if self.calls == 3 and os.getpid() != self.owner and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.inner(x)


class KilledReading(Dataset):
    """Images at one of which the process that reads is killed, once."""

    def __init__(self, marker, owner):
        self.marker, self.owner, self.data = marker, owner, images()

    def __len__(self):
        return 40

    def __getitem__(self, number):
        if number == 18 and os.getpid() != self.owner and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.data[number]


def test_killed_processes_change_nothing(tmp_path):
    actor, reader, owner = tmp_path / "actor", tmp_path / "reader", os.getpid()

    def made():
        torch.set_num_threads(1)
        return Explainer(Killed(actor, owner), class_names=list("abcde"))

    data = KilledReading(reader, owner)
    store = on_two(tmp_path / "maps.zarr", data, made)
    assert actor.exists()
    assert reader.exists()
    alone = made().run(data, METHODS, to=tmp_path / "alone.zarr", **HOW)
    assert_same(store.path, alone.path)


def test_errors_come_through(tmp_path):
    seeds = iter([0, 1, 2, 3, 4])

    def other():
        return Explainer(small_cnn(os.getpid() + next(seeds)), class_names=list("abcde"))

    with pytest.raises(StoreError, match="other weights in each process"):
        on_two(tmp_path / "weights.zarr", made=other)
    missing = [*images(39), "missing.png"]
    with pytest.raises(ImageFileError, match="There is no file at"):
        on_two(tmp_path / "strict.zarr", missing, strict=True)
    with pytest.warns(UserWarning, match="1 image could not be read"):
        store = on_two(tmp_path / "missing.zarr", missing)
    assert [one.number for one in store.skipped] == [39]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(images())


def test_what_ray_cannot_do_is_refused_at_once(tmp_path):
    with pytest.raises(InputTypeError, match="images by their numbers"):
        on_two(tmp_path / "a.zarr", Stream())
    with pytest.raises(InputError, match="leave none of 2 for reading"):
        on_two(tmp_path / "b.zarr", cpus_per_actor=1)
    with pytest.raises(InputError, match="2 actors with 1 GPUs each need more than the 0"):
        on_two(tmp_path / "c.zarr", gpus_per_actor=1)


def test_shares():
    def shares(total, gpus, *asked):
        return tuple(on_ray._resources({"CPU": total, "GPU": gpus}, *asked).values())

    assert shares(2, 0, 2, None, 0) == (2, 0.5, 0)
    assert shares(2, 0, None, None, 0) == (1, 1, 0)
    assert shares(16, 0, None, None, 0) == (8, 1.5, 0)
    assert shares(32, 4, None, None, 1) == (4, 6, 1)
    assert shares(32, 4, None, None, 0.5) == (8, 3, 0.5)


def test_with_ray_datas_own_map_batches(cluster):
    """As the docs say."""
    data = cluster.data.from_items([{"image": image.numpy(), "name": str(i)} for i, image in enumerate(images(12))])
    done = data.map_batches(
        datasets.BatchExplainer,
        fn_constructor_args=(make, "grad_cam"),
        batch_size=4,
        compute=cluster.data.ActorPoolStrategy(size=1),
        num_cpus=0.5,
    ).take_all()
    whole = make().explain(images(12), batch_size=4)
    assert {row["name"]: row["prediction"] for row in done} == {str(i): int(t) for i, t in enumerate(whole.targets)}
    assert {row["grad_cam"].shape for row in done} == {(4, 6)}
