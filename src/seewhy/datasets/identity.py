"""What a run over a data set is, in words and digests, so that going on with another one is noticed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import fields
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._version import __version__
from ..arguments import device_of
from ..engine.borrow import undisturbed
from ..errors import StoreError
from ..methods import Method
from .job import Job
from .reading import Reader
from .sources import source_of

if TYPE_CHECKING:
    from ..explainer import Explainer

PROBES = 8  # images that are looked at to know a data set again
_MEANS = {
    "model": "another model, or other weights",
    "transform": "another transform",
    "class_names": "other class names",
    "methods": "other methods or options",
    "layer": "other layers",
    "target": "another target",
    "data": "another data set: other files, labels or images, or random augmentation",
    "batch_size": "another batch size",
    "chunk": "another number of images per chunk",
    "pictures": "or without the pictures",
    "versions": "other versions",
}


def identity(job: Job, chunk: int | None, pictures: bool) -> dict[str, Any]:
    """What makes this run the one that it is, as JSON can hold it."""
    explainer, reader = job.explainer, job.reader
    return {
        "model": model_words(explainer),
        "transform": explainer._preprocessing.description,
        "class_names": {str(index): name for index, name in explainer._names.items()},
        "methods": [f"{one.label}: {type(one).__qualname__}({_options(one)})" for one in job.methods],
        "layer": list(job.work.asked),
        "target": _said(job.target),
        "data": {"count": reader.count, "classes": list(reader.classes), "digest": _data(reader, job)},
        "batch_size": reader.batch_size,
        "chunk": chunk,
        "pictures": pictures,
        "versions": {"seewhy": __version__, "torch": str(torch.__version__)},
    }


def check_same(path: Path, given: Mapping[str, Any], stored: Mapping[str, Any]) -> None:
    """Refuse to go on with a store that another run began.

    Raises:
        StoreError: naming what differs.
    """
    for name, meaning in _MEANS.items():
        if given[name] != stored.get(name):
            difference = _difference(given[name], stored.get(name))
            raise StoreError(f"The store {str(path)!r} was begun with {meaning}{difference}. Go on with the same, or "
                             "write to another folder.")  # fmt: skip


def _difference(given: Any, stored: Any) -> str:
    if isinstance(given, dict) and isinstance(stored, dict):
        differ = [key for key in given if given[key] != stored.get(key)]
        shown = [f"{key} {stored.get(key)!r}, now {given[key]!r}" for key in differ if not _is_long(given[key])]
        return f" ({'; '.join(shown)})" if shown else ""
    return "" if _is_long(given) or _is_long(stored) else f" ({stored!r}, now {given!r})"


def _is_long(value: Any) -> bool:
    return len(repr(value)) > 100


def model_words(explainer: Explainer) -> dict[str, str]:
    """The network's class, kind of device, and a digest of its weights."""
    model, digest = explainer._inner, blake2b(digest_size=16)
    for name, tensor in model.state_dict().items():
        digest.update(name.encode())
        if isinstance(tensor, torch.Tensor):
            _add(digest, tensor)
    where = device_of(model, explainer._device)
    return {"class": type(model).__qualname__, "device": where.type if where else "cpu", "weights": digest.hexdigest()}


def _add(digest: blake2b, tensor: torch.Tensor) -> None:
    plain = tensor.detach().cpu().contiguous()
    digest.update(f"{plain.dtype}{tuple(plain.shape)}".encode())
    if plain.numel():
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)


def _options(method: Any) -> str:
    named = ((one.name, getattr(method, one.name)) for one in fields(method) if one.init and one.name != "name")
    return ", ".join(f"{name}={_said(value)}" for name, value in named)


def _said(value: Any) -> str:
    """A value in words that are the same in each process, and others for another value."""
    if isinstance(value, torch.Tensor | np.ndarray):
        digest = blake2b(digest_size=16)
        _add(digest, torch.as_tensor(value))
        return f"{tuple(value.shape)} {digest.hexdigest()}"
    if isinstance(value, Method):
        return f"{type(value).__qualname__}({_options(value)})"
    name = getattr(value, "__qualname__", None)
    return name or re.sub(r" at 0x[0-9a-f]+", "", repr(value))


def _data(reader: Reader, job: Job) -> str | None:
    """A digest of the data set's files, arrays, labels and some images; None where it can only be read once through."""
    if not reader.seekable or reader.count is None:
        return None
    digest = blake2b(repr(job.labels).encode(), digest_size=16)
    for number in range(reader.count):
        source = source_of(reader.data, number)
        if source is not None:
            digest.update(source.encode("utf-8", "surrogateescape"))
            with suppress(OSError):
                stat = Path(source).stat()
                digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    for array in reader.arrays:
        _add(digest, torch.as_tensor(array))
    with undisturbed(job.explainer._inner):
        for number in np.unique(np.linspace(0, reader.count - 1, PROBES).astype(int)):
            found = reader.some([int(number)])
            digest.update(repr((found.labels, [one.reason for one in found.skipped])).encode())
            digest.update(found.input.float().cpu().numpy().tobytes())
    return digest.hexdigest()
