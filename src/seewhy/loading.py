"""From a name to an `Explainer`: networks of torchvision, timm, Hugging Face, or one's own."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import nn

from . import checkpoints
from .checkpoints import State
from .downloads import INSTEAD, downloading, library
from .errors import (
    InputError,
    InputTypeError,
    ModelError,
    UnknownNameError,
    close_matches,
)
from .explainer import Explainer, Weights

Network: TypeAlias = tuple[nn.Module, dict[str, Any]]  # with what `Explainer` is to be told of it
_ENDINGS = ("ForImageClassification", "ForSemanticSegmentation", "VisionModelWithProjection", "Model")


def load(spec: str, weights: Weights = "DEFAULT", **kwargs: Any) -> Explainer:
    """The network that `spec` names, as an `Explainer` with its own transform and class names where they are known.

    Args:
        spec: ``"resnet50"`` (torchvision), ``"timm:NAME"``, ``"hf:NAME"`` (Hugging Face, or a local folder) or
            ``"package.module:callable"``.
        weights: ``"DEFAULT"`` (trained, downloaded where needed), None or ``"none"`` (random, but the same at each
            call), or a file: a state dict in ``.pth`` or ``.safetensors``.
        kwargs: of `Explainer`.

    Raises:
        UnknownNameError: there is no such network; close matches are offered.
        ModelError: downloading failed, or the weights do not fit.
        MissingDependencyError: the library is not installed.

    >>> load("resnet18", weights=None)
    Explainer(ResNet, 1000 class names, cpu, given: mean (0.485, 0.456, 0.406), std (0.229, 0.224, 0.225))
    """
    source, colon, name = spec.partition(":")
    if not colon:
        return Explainer.from_torchvision(spec, weights, **kwargs)
    if source == "timm":
        return Explainer.from_timm(name, weights, **kwargs)
    if source == "hf":
        return Explainer.from_transformers(name, weights, **kwargs)
    return from_callable(spec, weights, **kwargs)


def torchvision_network(name: str, weights: Weights, num_classes: int | None) -> Network:
    """A network of torchvision by its builder's name, with the transform and class names of its default weights."""
    models: Any = importlib.import_module("torchvision.models")
    if name not in models.list_models():
        raise UnknownNameError(_unknown_torchvision(name, models.list_models()))
    known = models.get_model_weights(name)
    named = _trained_by_torchvision(models, known, weights)
    weights = "DEFAULT" if named else weights
    trained = named or getattr(known, "DEFAULT", None)
    if _is_default(weights, num_classes):
        if trained is None:
            raise ModelError(f"torchvision has no trained weights for {name!r}. {INSTEAD}")
        with downloading(name):
            model, classes = models.get_model(name, weights=trained), None
    else:
        backbone = inspect.signature(models.get_model_builder(name)).parameters.keys() & {"weights_backbone"}
        options = {"weights": None, **dict.fromkeys(backbone)}  # else the backbone's would be downloaded
        model, classes = _built(
            lambda n: models.get_model(name, **options, **_only(num_classes=n)), weights, num_classes
        )
    names = trained.meta.get("categories", ()) if trained else ()
    return model.eval(), {
        "transform": trained.transforms() if trained else None,
        "class_names": _names(names, classes),
    }


def timm_network(name: str, weights: Weights, num_classes: int | None) -> Network:
    """A network of timm with, where it is ImageNet's, the class names; its transform is found by `Explainer`."""
    timm: Any = library("timm")
    on_hub = name.startswith(("hf-hub:", "hf_hub:"))
    if not on_hub:
        _check_timm_name(timm, name)
    with downloading(name, hub=on_hub or _is_default(weights, num_classes), instead=not on_hub):
        if _is_default(weights):
            model = timm.create_model(name, pretrained=True)
        else:
            model, _ = _built(lambda n: timm.create_model(name, **_only(num_classes=n)), weights, num_classes)
    return model.eval(), {"class_names": _timm_names(model)}


def transformers_network(name: str, weights: Weights, num_classes: int | None, *, processed: bool) -> Network:
    """A network of Hugging Face by its name on the hub or a folder; where `processed`, with its image processor."""
    transformers: Any = library("transformers")
    default = _is_default(weights, num_classes)
    with downloading(name, hub=not Path(name).is_dir(), instead=False):
        config = transformers.AutoConfig.from_pretrained(name, trust_remote_code=False)
        kind = _kind(transformers, config)
        processor = _processor(transformers, name) if processed else None
        if default:
            model, classes = _pretrained(kind, name), None
        else:
            model, classes = _built(lambda n: _from_config(kind, name, n), weights, num_classes, _renamed)
    names = {int(index): label for index, label in config.id2label.items()} if _classifies(model) else None
    return model.eval(), {"transform": processor, "class_names": None if classes else names}


def from_callable(spec: str, weights: Weights = None, **kwargs: Any) -> Explainer:
    """What ``"package.module:callable"`` gives, called without arguments: a network, or an `Explainer` as it is.

    The current folder can be imported from, as with ``python -m``. `weights` may be a file of weights; otherwise they
    are as the callable gives them, with random numbers that are the same at each call. `kwargs` are `Explainer`'s, for
    a network. Raises UnknownNameError where there is no such callable, ModelError where it fails, InputTypeError where
    it gives something else.

    >>> from_callable("seewhy.testing:small_cnn")
    Explainer(SmallCNN, no class names, cpu, ImageNet's usual (assumed): short side 256, crop 224x224, mean (0.485, \
0.456, 0.406), std (0.229, 0.224, 0.225))
    """
    made = _called(spec)
    if isinstance(made, Explainer) and kwargs:
        raise InputError(f"{spec} gives an Explainer, which has its own {', '.join(kwargs)}: leave that out.")
    if not isinstance(made, nn.Module | Explainer):
        raise InputTypeError(f"{spec} gives {type(made).__name__}; expected a torch.nn.Module or a seewhy.Explainer.")
    model = made.model if isinstance(made, Explainer) else made
    if not _is_random(weights) and not _is_default(weights):
        checkpoints.fill(model, checkpoints.read(weights, model), _said(weights))
    return made if isinstance(made, Explainer) else Explainer(made, **kwargs)


# ------------------------------------------------------------------------------------------------- building, seeded


def _is_default(weights: Weights, num_classes: int | None = None) -> bool:
    default = isinstance(weights, str) and weights.lower() == "default"
    if default and num_classes is not None:
        raise InputError(
            f"num_classes={num_classes} would leave the last layer of trained weights untrained. {INSTEAD}"
        )
    return default


def _is_random(weights: Weights) -> bool:
    return weights is None or (isinstance(weights, str) and weights.lower() == "none")


def _said(weights: Weights) -> str:
    """What messages call the weights."""
    return "weights=" if weights is None or isinstance(weights, Mapping) else os.fspath(weights)


def _only(**options: Any) -> dict[str, Any]:
    return {name: value for name, value in options.items() if value is not None}


def _names(names: Any, classes: int | None) -> Any:
    """The class names that are known, unless there are other classes."""
    return names if names and classes in (None, len(names)) else None


def _built(
    build: Callable[[int | None], nn.Module],
    weights: Weights,
    num_classes: int | None,
    rename: Callable[[nn.Module, State], State] = lambda _, state: state,
) -> tuple[nn.Module, int | None]:
    """The network with random weights or a file's, and its number of classes where that is not the builder's own."""
    with _seeded():
        model = build(num_classes)
    if weights is None or _is_random(weights):
        return model, num_classes
    state = rename(model, checkpoints.read(weights, model))
    found = checkpoints.number_of_classes(state, model) if num_classes is None else None
    if found:
        with _seeded():
            model = build(found)
    checkpoints.fill(model, state, _said(weights))
    return model, found or num_classes


@contextmanager
def _seeded() -> Iterator[None]:
    """Random numbers that are the same each time; the user's own go on as if nothing had happened."""
    python, numbers = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        random.seed(0)
        np.random.seed(0)
        torch.default_generator.manual_seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numbers)


# ------------------------------------------------------------------------------------------- what each library needs


def _trained_by_torchvision(models: Any, known: Any, weights: Any) -> Any:
    """The weights that are named as torchvision does, by a member of its enumeration or that one's name."""
    if isinstance(weights, models.WeightsEnum):
        return weights
    return known.__members__.get(weights) if isinstance(weights, str) and weights != "DEFAULT" else None


def _unknown_torchvision(name: str, known: list[str]) -> str:
    message = f"torchvision has no network {name!r}.{close_matches(name, known)}"
    if "." in name or "/" in name:
        return f"{message} For others: timm:NAME, hf:NAME, or package.module:callable."
    try:
        found = importlib.import_module("timm").is_model(name)
    except ImportError:
        found = False
    return f"{message} timm has it: timm:{name}." if found else f"{message} For timm's: timm:NAME."


def _check_timm_name(timm: Any, name: str) -> None:
    plain, _, tag = name.partition(".")
    if not timm.is_model(plain):
        near = close_matches(plain, timm.list_models())
        raise UnknownNameError(f"timm has no network {name!r}.{near} timm.list_models('*part*') lists them.")
    known = timm.list_pretrained(f"{plain}.*") if tag else [name]
    if name not in known:
        raise UnknownNameError(f"timm has no {name!r}; of {plain!r} it has: {', '.join(known) or 'none'}.")


def _timm_names(model: nn.Module) -> list[str] | None:
    data: Any = importlib.import_module("timm.data")
    config: Any = model.pretrained_cfg
    count = model.num_classes
    labels = config.get("label_names")
    if labels and len(labels) == count:
        return list(labels)
    subset = data.infer_imagenet_subset(model)
    if not subset:
        return None
    info = data.ImageNetInfo(subset)
    if info.num_classes() != count:
        return None
    return [info.index_to_description(index) for index in range(info.num_classes())]


def _processor(transformers: Any, name: str) -> Any:
    try:
        return transformers.AutoImageProcessor.from_pretrained(name, trust_remote_code=False)
    except (OSError, ValueError):
        if not Path(name).is_dir():
            raise
        return None  # saved without one: the usual is assumed, with a warning


def _kind(transformers: Any, config: Any) -> Any:
    """The class of what is stored: a classifier, a segmenter or an encoder; of a pair with text, that of the images."""
    stored = (getattr(config, "architectures", None) or [""])[0]
    if hasattr(config, "vision_config") and stored.endswith("Model"):
        stem = stored.removesuffix("Model")
        towers = (getattr(transformers, f"{stem}{end}", None) for end in ("VisionModelWithProjection", "VisionModel"))
        return next(filter(None, towers), transformers.AutoModelForImageClassification)
    named = getattr(transformers, stored, None) if stored.endswith(_ENDINGS) else None
    return named or transformers.AutoModelForImageClassification


def _classifies(model: nn.Module) -> bool:
    return type(model).__name__.endswith(("ForImageClassification", "ForSemanticSegmentation"))


def _config(kind: Any, name: str) -> Any:
    """The part of the stored configuration that belongs to this class of model."""
    own = getattr(kind, "config_class", None)  # which the automatic classes have not
    if own is None:
        return importlib.import_module("transformers").AutoConfig.from_pretrained(name, trust_remote_code=False)
    return own.from_pretrained(name)


def _from_config(kind: Any, name: str, classes: int | None) -> nn.Module:
    config = _config(kind, name)
    if classes:
        config.num_labels = classes
    model: nn.Module = kind.from_config(config) if hasattr(kind, "from_config") else kind(config)
    return model


def _renamed(model: Any, state: State) -> State:
    """The weights by the names of this version of transformers, where their file has those of another."""
    if state.keys() == model.state_dict().keys():
        return state
    try:
        with _seeded():
            loaded, told = type(model).from_pretrained(
                None, config=model.config, state_dict=dict(state), output_loading_info=True
            )
    except (RuntimeError, ValueError):  # shapes differ, which is told of where it is tried again
        return state
    renamed: State = state if any(told.values()) else loaded.state_dict()
    return renamed


def _pretrained(kind: Any, name: str) -> nn.Module:
    """The trained network; refused where a part of it, such as its last layer, would be random."""
    model: nn.Module
    model, told = kind.from_pretrained(name, output_loading_info=True, trust_remote_code=False)
    lacking = sorted(map(str, [*told.get("missing_keys", ()), *told.get("mismatched_keys", ())]))
    if lacking:
        raise ModelError(
            f"{name!r} has no trained weights for {', '.join(lacking[:3])}{' …' if len(lacking) > 3 else ''} of "
            f"{type(model).__name__}. Take one that was trained whole."
        )
    return model


def _called(spec: str) -> Any:
    module_name, _, attribute = spec.partition(":")
    if not module_name or not attribute:
        raise InputError(f"{spec!r}: expected package.module:callable, as in nets:build.")
    here = str(Path.cwd())
    sys.path.insert(0, here)
    try:
        with _seeded():
            found = _attribute(_module(module_name, spec), attribute, module_name)
        if isinstance(found, nn.Module | Explainer) or not callable(found):
            return found
        with _seeded():  # anew: the first import may have drawn numbers, and there is no second
            return _call(found, spec)
    finally:
        sys.path.remove(here)


def _module(name: str, spec: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            raise _raised(spec, error) from error
        near = close_matches(name, [path.stem for path in Path().glob("*.py")])
        raise UnknownNameError(f"There is no module {error.name!r} to import {spec!r} from.{near}") from error
    except Exception as error:
        raise _raised(spec, error) from error


def _attribute(module: Any, name: str, module_name: str) -> Any:
    try:
        return attrgetter(name)(module)
    except AttributeError as error:
        near = close_matches(name, [known for known in vars(module) if not known.startswith("_")])
        raise UnknownNameError(f"The module {module_name!r} has no {name!r}.{near}") from error


def _call(found: Callable[[], Any], spec: str) -> Any:
    try:
        return found()
    except Exception as error:
        raise _raised(spec, error) from error


def _raised(spec: str, error: Exception) -> ModelError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = f" ({Path(last.filename).name}, line {last.lineno})" if last.filename != __file__ else ""
    return ModelError(f"{spec}, called without arguments, raised {type(error).__name__}: {error}{where}.")
