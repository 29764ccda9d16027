"""A run over a data set on many processes or machines, by Ray Data."""

from __future__ import annotations

import functools
import logging
import os
import pickle
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..arguments import whole
from ..downloads import library
from ..errors import InputError, InputTypeError, SeewhyError, StoreError
from ..inside.items import Columns
from ..progress import bar
from .identity import model_words
from .job import Job
from .run import first_words, left_to_do, prepared, require_libraries
from .single import Loaded
from .store import Store
from .writing import Writer, locked

if TYPE_CHECKING:
    from ..explainer import Explainer

INSTALL = '"seewhy[ray]"'
SHARE = 0.01  # of a CPU, the least that is told apart


def run_on_ray(
    dataset: Any,
    make_explainer: Callable[[], Explainer],
    methods: Any = "grad_cam",
    *,
    to: str | os.PathLike[str],
    layer: Any = None,
    target: Any = None,
    labels: Sequence[Any] | Mapping[Any, int | str] | None = None,
    columns: Columns = None,
    batch_size: int | None = None,
    chunk: int | None = None,
    pictures: bool = True,
    strict: bool = False,
    actors: int | None = None,
    cpus_per_actor: float | None = None,
    gpus_per_actor: float = 0,
    progress: bool | None = None,
    **options: Any,
) -> Store:
    """Explain a data set on a Ray cluster (or on this machine's CPUs) into a store, as `Explainer.run` does on one.

    Images are read and transformed by tasks of their own, chunk by chunk, and explained by actors that hold the network
    and write their chunks. A task or actor that dies is started again, and its chunk is done again. The store is that
    of `Explainer.run`, can be gone on with, and must be on a disk that all machines see.

    Args:
        dataset: as for `Explainer.evaluate`, where images can be asked for by number: a folder, list or `Dataset`. It
            is sent to all machines, where its files must be found by the same paths.
        make_explainer: a function without arguments that gives the `Explainer`; here, and once in each actor. All must
            have the same weights, which is checked.
        methods: one or several, as for `Explainer.run`.
        to: the folder of the store.
        layer: as for `Explainer.run`.
        target: as for `Explainer.run`.
        labels: as for `Explainer.run`.
        columns: as for `Explainer.run`.
        batch_size: as for `Explainer.run`.
        chunk: as for `Explainer.run`; also what goes from a reading task to an actor at once.
        pictures: as for `Explainer.run`.
        strict: as for `Explainer.run`.
        actors: how many; None: one for each GPU or share of it that is asked for, else half as many as CPUs.
        cpus_per_actor: None: what leaves one CPU, or one in four, for reading.
        gpus_per_actor: 1 for a GPU each, 0.5 for two actors on one.
        progress: as for `Explainer.run`.
        options: of the methods.

    Returns:
        The `Store`.

    Raises:
        InputError: the actors leave no CPU for reading, so that nothing would begin, or ask for more than there is.
        StoreError: as for `Explainer.run`, or an actor's network has other weights.
        MissingDependencyError: Ray is not installed.
        SeewhyError: else as for `Explainer.run`.
    """
    ray: Any = library("ray", INSTALL)
    library("ray.data", INSTALL)
    require_libraries()
    path = Path(to).absolute()
    asked = {"labels": labels, "columns": columns, "strict": strict, "progress": progress, "target": target}
    asked |= {"method": methods, "layer": layer, "batch_size": batch_size, "options": options}
    with locked(path):
        job, words, stored = prepared(path, chunk, pictures, {"explainer": make_explainer(), "data": dataset, **asked})
        if not job.reader.seekable:
            raise InputTypeError("Many machines need images by their numbers: give a folder, a list or a Dataset.")
        if stored is None:
            answer = next(one for one in map(job.work, job.reader.batches()) if one.explanations)
            stored = first_words(path, job, words, answer)
        todo = [part for part in left_to_do(path, job, stored) for part in _cut(part, stored["chunk"])]
        if todo:
            if not ray.is_initialized():
                ray.init(log_to_driver=False)
            how = _resources(ray.cluster_resources(), actors, cpus_per_actor, gpus_per_actor)
            own = {"method": methods, "layer": layer, "target": target, "options": options, "known": job.classes}
            worker = {"make": make_explainer, "asked": own, "path": path, "stored": stored, "layers": job.work.layers}
            empty: Counter[str] = Counter()
            with bar(progress, sum(stop - first for first, stop in todo), doing="explaining", unit="image") as shown:
                for count, blank in _quietly(ray, _spread(ray, job.reader.loaded, todo, worker, how)):
                    shown.update(count)
                    empty.update(blank)
            job.work.empty = empty
    store = Store(path)
    job.say([one.source or f"image {one.number}" for one in store.skipped])
    return store


def _cut(part: tuple[int, int], chunk: int) -> list[tuple[int, int]]:
    first, stop = part
    return [(start, min(start + chunk, stop)) for start in range(first, stop, chunk)]


def _resources(there: Mapping[str, float], actors: int | None, cpus: float | None, gpus: float) -> dict[str, Any]:
    """Of how many actors, with what share of the CPUs and GPUs that are `there`."""
    total, devices = there.get("CPU", 0.0), there.get("GPU", 0.0)
    if gpus < 0 or (cpus is not None and cpus <= 0):
        raise InputError(f"Shares of CPUs and GPUs are positive, not cpus_per_actor={cpus}, gpus_per_actor={gpus}.")
    if actors is None:
        actors = int(devices / gpus) if gpus else max(1, int(total // 2))
    number = whole(actors, "actors") if actors else 0
    if not number or number * gpus > devices:
        raise InputError(f"{number or 'Some'} actors with {gpus:g} GPUs each need more than the {devices:g} there are.")
    left = max(1.0, total // 4)  # for reading
    if cpus is None:
        cpus = max(SHARE, int((total - left) / number / SHARE) * SHARE)
    if number * cpus > total - 1 + SHARE / 2:
        raise InputError(
            f"{number} actors with {cpus:g} CPUs each leave none of {total:g} for reading, so that nothing would ever "
            f"begin: at most {max(total - 1, 0):g} are for actors."
        )
    return {"actors": number, "num_cpus": round(cpus, 4), "num_gpus": gpus}


def _spread(
    ray: Any, loaded: Loaded, todo: Sequence[tuple[int, int]], worker: dict[str, Any], how: dict[str, Any]
) -> Iterator[tuple[int, dict[str, int]]]:
    """Read and explain the chunks; gives the number of images of each that is written, and of blank maps."""
    held = ray.put(loaded)
    rows = [{"first": first, "stop": stop} for first, stop in todo]
    read = ray.data.from_items(rows, override_num_blocks=len(rows)).map(_read, fn_args=(held,), num_cpus=1)
    written = read.map_batches(
        _Actor,
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=how["actors"]),
        fn_constructor_kwargs=worker,
        num_cpus=how["num_cpus"],
        num_gpus=how["num_gpus"],
    )
    for row in written.iter_rows():
        done = pickle.loads(row["done"])
        if isinstance(done, SeewhyError):
            raise done
        yield done


def _quietly(ray: Any, done: Iterator[Any]) -> Iterator[Any]:
    """`done` without what Ray Data says of its own progress, beside ours."""
    context, log = ray.data.DataContext.get_current(), logging.getLogger("ray.data")
    before = context.enable_progress_bars, log.level
    context.enable_progress_bars = False
    log.setLevel(logging.WARNING)
    try:
        yield from done
    finally:
        context.enable_progress_bars = before[0]
        log.setLevel(before[1])


@functools.lru_cache(1)
def _fetched(held: Any) -> Loaded:
    """What is to be read, which may be a list of millions, once for each process."""
    ray: Any = library("ray", INSTALL)
    found: Loaded = ray.get(held)
    return found


def _read(row: dict[str, Any], held: Any) -> dict[str, Any]:
    """The images of a chunk, read and transformed, in one piece that Ray need not understand; or our error."""
    found: Any
    try:
        loaded = _fetched(held)
        found = [loaded[number] for number in range(row["first"], row["stop"])]
    except SeewhyError as error:
        found = error
    return {"found": pickle.dumps(found, protocol=5)}


class _Actor:
    """Explains chunks and writes them; lives in a process of its own."""

    def __init__(
        self, make: Callable[[], Explainer], asked: dict[str, Any], path: Path, stored: dict[str, Any],
        layers: Sequence[str],
    ) -> None:  # fmt: skip
        self._make, self._asked, self._path, self._stored, self._layers = make, asked, path, stored, layers
        self._made: Job | None = None

    def _job(self) -> Job:
        """Made with the first chunk, so that an error in its making is told."""
        if self._made is None:
            job = Job(**self._asked, explainer=self._make(), data=[None], batch_size=self._stored["run"]["batch_size"])
            job.work.use(self._layers)
            if model_words(job.explainer)["weights"] != self._stored["run"]["model"]["weights"]:
                raise StoreError("make_explainer gives a network with other weights in each process: load them from a "
                                 "file, or seed them.")  # fmt: skip
            self._made = job
        return self._made

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, Any]:
        """Explain and write the one chunk of a batch; says of how many images it was, and which maps are blank."""
        try:
            done: Any = self._written(pickle.loads(batch["found"][0]))
        except SeewhyError as error:  # Ray would lose its kind
            done = error
        return {"done": np.array([pickle.dumps(done)], object)}

    def _written(self, found: Any) -> tuple[int, dict[str, int]]:
        if isinstance(found, SeewhyError):
            raise found
        job, writer = self._job(), Writer(self._path, self._stored)
        job.work.empty.clear()
        size = job.reader.batch_size
        for start in range(0, len(found), size):
            writer.add(job.work(job.reader.batch(found[start : start + size])))
        writer.flush()
        return len(found), dict(job.work.empty)
