"""The one door: resolves inputs, targets, layers and methods, and hands the work to the engine."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, TypeAlias, Unpack, overload

import numpy as np
import torch
from torch import Tensor, nn

from .arguments import chunks, device_of, named_classes, parsed_device, whole
from .cautions import Cautions, check_truth, class_labels, true_classes
from .collect import Collector
from .colours import to_input
from .engine.borrow import borrowed
from .engine.choice import Choice
from .engine.diagnose import zero_weights
from .engine.inputs import ModelInputs, make_inputs
from .engine.passes import Measured, Request, measure, run
from .engine.record import Needs
from .errors import (
    GradientError,
    InputError,
    InputTypeError,
    LayerError,
    ModelError,
    TargetError,
    warn,
)
from .explanation import Explanation
from .explanations import Explanations
from .given import Given, check_given
from .images import Images, gather, resolve_preprocessing
from .layers import Layer, LayerTable, find_layers, unwrap
from .layouts import first_convolution
from .methods import Method
from .methods.make import make_methods
from .origin import Origin
from .outputs import KINDS, ranked, read_outputs
from .scoring import Scoring, check_finite, find_pairs, find_targets, with_embeddings
from .targets import About, Target

if TYPE_CHECKING:
    from .datasets import Evaluation, Store
    from .trust import Check, Common

_USUAL = {1: (4096,), 2: (224, 224), 3: (16, 112, 112)}  # sides of an input, where nothing says more
Weights: TypeAlias = "str | os.PathLike[str] | Mapping[str, Any] | None"
_ACTIVATIONS = ("softmax", "sigmoid", "none", None)


@dataclass(frozen=True)
class Prediction:
    """One class that the model predicts: its `index`, `name` and `probability` in 0..1."""

    index: int
    name: str
    probability: float

    def __repr__(self) -> str:
        return f"Prediction(index={self.index}, name={self.name!r}, probability={self.probability:.4g})"


class Explainer:
    """Explains any PyTorch vision model; the model comes back as it was after every call.

    Args:
        model: any `nn.Module` that turns images ``(N, C, H, W)`` into scores ``(N, K)``. DataParallel,
            DistributedDataParallel and torch.compile wrappers are looked through.
        transform: from an RGB PIL image to the model's input ``(C, H, W)``. None: the network's own where it is known
            (timm), else ImageNet's usual, said once by a `SeewhyWarning`.
        class_names: a sequence, or ``{index: name}``. Any comma-separated part of a name matches as ``target=``.
        device: where inputs go. None: where the model is.
        output: picks the scores ``(N, K)``, or dense scores ``(N, K, H, W)``, detections or an embedding, out of what
            the model returns. None: worked out.
        activation: ``"softmax"``, ``"sigmoid"`` or ``"none"``, from scores to probabilities. None: softmax; sigmoid for
            one class; scores that already sum to 1 are taken as they are.
        layout: where the positions are in what layers return, where that is not worked out (rightly). ``"NCHW"``,
            ``"NHWC"`` (channels last) or ``"tokens"`` ``(N, prefix + h*w, C)`` settles what is not certain. A function
            from a layer's output to ``(N, C, h, w)``, or to None where it is to be worked out, goes before everything;
            it only picks and reorders elements.

    Raises:
        InputTypeError: `model` is no module.
        InputError: `device` is not where the model is, or `activation` or `layout` is unknown.

    >>> import torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> explanation = Explainer(model).explain(torch.rand(1, 3, 8, 10), target=1)
    >>> explanation.method, explanation.layer, explanation.map.shape
    ('grad_cam', '1', (8, 10))
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        transform: Callable[..., Any] | None = None,
        class_names: Sequence[str] | Mapping[int, str] | None = None,
        device: str | torch.device | None = None,
        output: Callable[[Any], Tensor] | None = None,
        activation: Literal["softmax", "sigmoid", "none"] | None = None,
        layout: Given = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            hint = " It is a class: make an instance of it." if isinstance(model, type) else ""
            raise InputTypeError(f"model must be a torch.nn.Module, not {type(model).__name__}.{hint}")
        if activation not in _ACTIVATIONS:
            raise InputError(f"activation is one of {_ACTIVATIONS}, not {activation!r}.")
        if output is not None and not callable(output):
            raise InputTypeError(f"output must be callable, from what the model returns to scores; {output!r} is not.")
        check_given(layout)
        self.model = model
        self._inner = unwrap(model)
        self._preprocessing = resolve_preprocessing(model, transform)
        self._names = named_classes(class_names)
        self._classes = None if isinstance(class_names, Mapping) else len(self._names) or None
        self._device = parsed_device(device)
        device_of(self._inner, self._device)
        self._output, self._activation, self._layout = output, activation, layout
        first = first_convolution(self._inner)
        self._sides = len(first.kernel_size) if first else 2  # of the inputs: signals have 1, images 2, videos 3
        self._choice = Choice(self._inner)
        self._cautions = Cautions(self._classes, activation)

    @classmethod
    def from_torchvision(
        cls, name: str, weights: Weights = "DEFAULT", *, num_classes: int | None = None, **kwargs: Any
    ) -> Self:
        """A network of torchvision, with the transform and class names of its default weights.

        Args:
            name: its builder's: ``"resnet50"``; also of segmentation, detection and video.
            weights: ``"DEFAULT"`` (trained, downloaded where needed), None (random, the same at each call), a file of
                weights (``.pth``, ``.safetensors``) or a state dict; here also torchvision's own, as in
                ``"IMAGENET1K_V1"``.
            num_classes: for random weights and files; None: the builder's own, or as many as the file has.
            kwargs: of `Explainer`, before the network's own.

        Raises:
            UnknownNameError: there is no such network; close matches are offered.
            ModelError: downloading failed, or the weights do not fit.

        >>> explainer = Explainer.from_torchvision("squeezenet1_0", weights=None, num_classes=7)
        >>> len(explainer.predict(torch.rand(1, 3, 64, 64), top=10)[0])
        7
        """
        from .loading import torchvision_network

        model, own = torchvision_network(name, weights, num_classes)
        return cls(model, **(own | kwargs))

    @classmethod
    def from_timm(
        cls, name: str, weights: Weights = "DEFAULT", *, num_classes: int | None = None, **kwargs: Any
    ) -> Self:
        """A network of timm, with the transform of its `pretrained_cfg` and, where it is ImageNet's, the class names.

        Arguments and errors are those of `from_torchvision`; a MissingDependencyError without timm. `name` may have a
        tag, as in ``"resnet50.a1_in1k"``, or be on the hub: ``"hf-hub:user/name"``.

        >>> Explainer.from_timm("resnet10t", weights=None)
        Explainer(ResNet, 1000 class names, cpu, timm's pretrained_cfg: 176x176, mean (0.485, 0.456, 0.406), \
std (0.229, 0.224, 0.225))
        """
        from .loading import timm_network

        model, own = timm_network(name, weights, num_classes)
        return cls(model, **(own | kwargs))

    @classmethod
    def from_transformers(
        cls, name: str, weights: Weights = "DEFAULT", *, num_classes: int | None = None, **kwargs: Any
    ) -> Self:
        """A classifier, segmenter or image encoder of Hugging Face, with its image processor and class names.

        `name` is the one on the hub or a folder made by `save_pretrained`; of a pair such as CLIP the image encoder is
        taken. Other arguments and errors are those of `from_torchvision`; a MissingDependencyError without
        transformers. Code that comes with a model is never run.
        """
        from .loading import transformers_network

        model, own = transformers_network(name, weights, num_classes, processed="transform" not in kwargs)
        return cls(model, **(own | kwargs))

    def __repr__(self) -> str:
        names = f"{len(self._names)} class names" if self._names else "no class names"
        device = device_of(self._inner, self._device) or "cpu"
        return f"Explainer({type(self._inner).__name__}, {names}, {device}, {self._preprocessing.description})"

    def __call__(self, inputs: Any) -> Explanation:
        """Grad-CAM of the predicted class: `explain` with its defaults."""
        return self.explain(inputs)

    @overload
    def explain(
        self, inputs: Any, method: str | Method | type[Method] = "grad_cam", *, target: Any = None,
        layer: str | nn.Module | None = None, truth: Any = None, batch_size: int | None = None,
        model_args: Sequence[Any] = (), model_kwargs: Mapping[str, Any] | None = None, **options: Any,
    ) -> Explanation: ...  # fmt: skip

    @overload
    def explain(
        self, inputs: Any, method: Sequence[str | Method | type[Method]], *, target: Any = None, layer: Any = None,
        truth: Any = None, batch_size: int | None = None, model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None, **options: Any,
    ) -> Explanations: ...  # fmt: skip

    @overload
    def explain(
        self, inputs: Any, method: Any = "grad_cam", *, target: Any = None, layer: Sequence[Any], truth: Any = None,
        batch_size: int | None = None, model_args: Sequence[Any] = (), model_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Explanations: ...  # fmt: skip

    def explain(
        self,
        inputs: Any,
        method: Any = "grad_cam",
        *,
        target: Any = None,
        layer: Any = None,
        truth: Any = None,
        batch_size: int | None = None,
        model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Explanation | Explanations:
        """Explain the target's score for each image, by one or many methods in one shared pass.

        Args:
            inputs: a path, PIL image, NumPy ``(H, W[, 3 or 4])`` or ``(N, H, W, 3)`` (uint8, or float in 0..1), uint8
                tensor ``(C, H, W)`` or ``(N, C, H, W)``: pictures, which the transform takes; or a float tensor
                ``(C, H, W)`` or ``(N, C, H, W)``: already transformed; or a list of these.
            method: a name, `Method` class or instance, or a list of these. `seewhy.list_methods()` lists the names.
            target: None (each image's predicted class), a class index, a class name, a `Target`, a callable from scores
                ``(N, K)`` to ``(N,)``, or a list with one of these for each image. Of dense scores, detections and
                embeddings None is the class that covers most where it is predicted, the most confident detection, and
                the image's own embedding. ``Top(5)``, or a list of k targets for each image, explains each image for
                all of them: N·k rows, those of an image together, which ``image_index`` tells.
            layer: None (chosen), a dotted name, a module, ``"name#2"`` for the second call of a module used several
                times, or a list of these. Methods that look at no layer pass it by.
            truth: the true class of each image, index or name, for marking right and wrong in pictures.
            batch_size: images per pass; 16 unless given. It changes no result. Of methods that ask the model many times
                also the most changed images at once, which is as many as is quickest unless given.
            model_args: further inputs of the model. ``...`` among them says where the images go (first, unless said),
                ``[...]`` that the model takes a list of them. Tensors with an entry for each image are cut as they are.
            model_kwargs: the same by name, as in ``{"pixel_values": ...}``.
            options: of the methods; each goes to the methods that declare it.

        Returns:
            An `Explanation` for one method and at most one layer, `Explanations` where either is a list.

        Raises:
            SeewhyError: in one of its kinds, when something cannot be used or explained; the model is left as it was.

        >>> import torch
        >>> from torch import nn
        >>> _ = torch.manual_seed(0)
        >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
        >>> explainer = Explainer(model)
        >>> both = explainer.explain(torch.rand(2, 3, 8, 8), ["saliency", "grad_cam"], target=[0, 1], layer=["0", "1"])
        >>> list(both)
        ['saliency', ('grad_cam', '0'), ('grad_cam', '1')]
        """
        methods = make_methods(method, options)
        layers = None if layer is None else tuple(dict.fromkeys(find_layers(self._inner, layer)))
        if layers == ():
            raise InputError("The list of layers is empty: name at least one, or leave layer out.")
        images, rest = gather(inputs, self._sides), make_inputs(model_args, model_kwargs)
        targets, each = find_pairs(target, len(images), self._about)
        truths = true_classes(truth, len(images), self._about)
        found, memory = Collector(methods, len(images)), dict[Any, Any]()
        with borrowed(self._inner):
            targets = with_embeddings(targets, partial(self._embedding, rest.part(0, 1, len(images))))
            for start, stop in chunks(len(images), batch_size):
                batch, pictures = self._load(images, start, stop)
                scoring = self._scoring(targets[start * each : stop * each], start, each)
                inputs = rest.part(start, stop, len(images))
                measured = self._measure(methods, layers, batch, scoring, inputs, batch_size, memory)
                if measured.selected:
                    check_truth(truths, measured.selected, self._about)
                found.add(measured, pictures)
                if measured.layers and layers is None:  # chosen once for the call
                    layers = tuple(find_layers(self._inner, measured.layers[0].label))
        provenance = {"model": type(self._inner).__name__}
        try:
            found.check()
        except GradientError as error:
            raise GradientError(f"{error}{zero_weights(self._inner)}") from None
        origin = Origin(images, rest, targets)
        explanations = found.explanations(class_labels(truths, self._about), images.sources, provenance, origin)
        for message in found.messages(images.sources):
            warn(message)
        if isinstance(method, list | tuple) or isinstance(layer, list | tuple):
            return Explanations(explanations)
        return explanations[0]

    def predict(
        self,
        inputs: Any,
        top: int = 5,
        *,
        batch_size: int | None = None,
        model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None,
    ) -> list[list[Prediction]]:
        """The `top` most probable classes of each image, the most probable first.

        Of dense scores it is the mean probability over positions; of detections the score of each class's best one.

        Args:
            inputs: as for `explain`.
            top: how many classes; fewer where the model has fewer.
            batch_size: as for `explain`.
            model_args: as for `explain`.
            model_kwargs: as for `explain`.

        Returns:
            For each image a list of `Prediction`.
        """
        top = whole(top, "top")
        images, rest = gather(inputs, self._sides), make_inputs(model_args, model_kwargs)
        predictions: list[list[Prediction]] = []
        with borrowed(self._inner), torch.no_grad():
            for start, stop in chunks(len(images), batch_size):
                batch, _ = self._load(images, start, stop, seen=False)
                raw = run(self._inner, batch, rest.part(start, stop, len(images)))
                outputs = read_outputs(raw, stop - start, self._output, self._classes)
                if outputs.classes is not None:
                    check_finite(outputs.classes, start)
                self._cautions.check_outputs(outputs)
                best = ranked(outputs, self._activation, top)
                predictions += [[Prediction(i, self._about.name(i), chance) for i, chance in row] for row in best]
        return predictions

    def check(
        self, explanation: Explanation, *, thorough: bool = False, seed: int = 0, **common: Unpack[Common]
    ) -> Check:
        """Whether a map is to be believed: a sentence for each question, with its number and threshold, and a verdict.

        Is there evidence where it looks; does the score follow it, as it is taken away and as it comes (deletion and
        insertion against random orders); is it another map for another class (random logit), and without what the last
        layer learned (model randomisation); is it stable under 2 % of noise; does it add up, if its method claims so.
        At most 50 forward passes' worth for each image, a backward pass counted as two. Methods that take many passes
        themselves are not asked to explain again, unless `thorough`.

        Args:
            explanation: of this explainer; several images are judged together.
            thorough: 24 random orders, 5 other classes, the weights layer by layer from the top, 10 draws of noise;
                also for methods that take many passes.
            seed: of all draws.
            common: as for the metrics, see `trust.Common`: ``images=`` where the explanation comes from a file.

        Returns:
            A `trust.Check`. No alarm does not make a map right: it has only passed these tests.

        Raises:
            InputError: the images are not those that were explained, or the network is another one.

        >>> import seewhy, torch
        >>> explainer = Explainer(seewhy.testing.small_cnn())
        >>> found = explainer.check(explainer.explain(torch.rand(1, 3, 24, 24), "saliency", target=1))
        >>> found["weights"].answer
        'yes'
        """
        from .trust.check import check

        return check(self, explanation, thorough=thorough, seed=seed, **common)

    def evaluate(
        self,
        dataset: Any,
        method: Any = (),
        layer: Any = None,
        *,
        labels: Sequence[Any] | Mapping[Any, int | str] | None = None,
        to: str | os.PathLike[str] | None = None,
        target: Any = None,
        columns: tuple[str, str | None] | None = None,
        batch_size: int | None = None,
        workers: int = 0,
        strict: bool = False,
        progress: bool | None = None,
        model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Evaluation:
        """Judge the classifier over a data set: accuracy, confusion, calibration, mistakes, and what it looked at.

        Args:
            dataset: a folder of photos (the names of the folders in it are the labels), a list of paths or images, of
                pairs ``(image, label)`` or mappings, an array or tensor of images, a torch `Dataset` or `DataLoader`,
                a Hugging Face `datasets.Dataset`, or anything to be iterated. What is no tensor goes through the
                transform. A loader that shuffles is read in the order of its data set.
            method: methods whose maps are to be kept, made in the same pass; none: predictions alone.
            layer: as for `explain`.
            labels: each image's true class, index or name, instead of the data set's own; or ``{label: class}``, from
                the data set's labels to the network's classes. Labels that are names are looked up among the network's.
            to: the folder of a store for the maps (see `run`); None: a temporary one, which goes with the result.
            target: one for all images, as for `explain`, or `datasets.TrueClass()`.
            columns: the names of image and label in the mappings that the data set gives; None: the usual ones.
            batch_size: images per pass; 16 unless given, of a loader its own.
            workers: processes that read and transform; 0: this one. A loader has its own.
            strict: whether an image that cannot be read is an error. Else it is passed by, listed in ``.skipped``, and
                a warning says how many there were.
            progress: whether to show a progress bar; None: where it takes more than 2 s and somebody watches.
            model_args: further inputs of the model, as for `explain`, the same for all images.
            model_kwargs: the same by name.
            options: of the methods.

        Returns:
            A `datasets.Evaluation`.

        Raises:
            SeewhyError: in one of its kinds: no image, none that can be read, images of several sizes, labels that are
                no class of the network, a network that is no classifier.

        >>> import seewhy, torch
        >>> images = torch.rand(20, 3, 16, 16, generator=torch.Generator().manual_seed(0))
        >>> Explainer(seewhy.testing.small_cnn()).evaluate(images, labels=[1, 2] * 10)
        Evaluation(SmallCNN, 20 images, accuracy 0.0000)
        """
        from .datasets.evaluate import evaluate

        return evaluate(
            explainer=self, data=dataset, method=method, layer=layer, labels=labels, to=to, target=target,
            columns=columns, batch_size=batch_size, workers=workers, strict=strict, progress=progress,
            model_args=model_args, model_kwargs=model_kwargs, options=options,
        )  # fmt: skip

    def run(
        self,
        dataset: Any,
        method: Any = "grad_cam",
        layer: Any = None,
        *,
        to: str | os.PathLike[str],
        target: Any = None,
        labels: Sequence[Any] | Mapping[Any, int | str] | None = None,
        columns: tuple[str, str | None] | None = None,
        batch_size: int | None = None,
        chunk: int | None = None,
        pictures: bool = True,
        workers: int = 0,
        strict: bool = False,
        progress: bool | None = None,
        model_args: Sequence[Any] = (),
        model_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Store:
        """Explain a whole data set into a store on disk, chunk by chunk.

        It can be stopped at any moment: the same call goes on where it was, and the store comes out equal to that of an
        uninterrupted run (but for rounding where methods ask the model many times, in chunks of the quickest size). A
        changed model, method or data set is refused, and so is a second run at the same time.

        Args:
            dataset: as for `evaluate`; its images must come in the same order each time.
            method: one or several.
            layer: as for `explain`.
            to: the folder of the store, a Zarr group with the raw values as the methods give them, and the predictions
                beside them as Parquet.
            target: as for `evaluate`.
            labels: as for `evaluate`.
            columns: as for `evaluate`.
            batch_size: as for `evaluate`.
            chunk: images that are written together, whole batches; what is lost at most when a run is stopped. None: as
                many as take 64 MiB, at most 1,024.
            pictures: whether to keep what the model saw; else explanations from the store have grey pictures.
            workers: as for `evaluate`.
            strict: as for `evaluate`.
            progress: as for `evaluate`.
            model_args: as for `evaluate`.
            model_kwargs: as for `evaluate`.
            options: of the methods.

        Returns:
            The `datasets.Store`, as `datasets.open` opens it again.

        Raises:
            StoreError: the folder cannot be written, is in use, or was begun by another run.
            SeewhyError: else as for `evaluate`.

        >>> import seewhy, tempfile, torch
        >>> folder = tempfile.TemporaryDirectory()
        >>> store = Explainer(seewhy.testing.small_cnn()).run(torch.rand(6, 3, 16, 16), to=f"{folder.name}/maps.zarr")
        >>> len(store), store[2]["grad_cam"].map.shape
        (6, (16, 16))
        >>> folder.cleanup()
        """
        from .datasets.run import run

        return run(
            to, chunk=chunk, pictures=pictures, explainer=self, data=dataset, method=method, layer=layer, target=target,
            labels=labels, columns=columns, batch_size=batch_size, workers=workers, strict=strict, progress=progress,
            model_args=model_args, model_kwargs=model_kwargs, options=options,
        )[0]  # fmt: skip

    def layers(
        self, inputs: Any = None, *, model_args: Sequence[Any] = (), model_kwargs: Mapping[str, Any] | None = None
    ) -> LayerTable:
        """The layers that run, in the order in which they finish, and which ``layer=None`` would choose.

        Args:
            inputs: as for `explain`; random noise of the usual size where None.
            model_args: as for `explain`.
            model_kwargs: as for `explain`.

        Returns:
            A list of `LayerInfo` that shows as a table.
        """
        images = gather(self._noise() if inputs is None else inputs, self._sides)
        rest = make_inputs(model_args, model_kwargs)
        needs = Needs(activation=True, gradient=True)
        with borrowed(self._inner):
            batch, _ = self._load(images, 0, 1, seen=False)
            scoring = self._scoring(find_targets(None, 1), 0)
            request = Request((needs,), choose=True, layout=self._layout, inputs=rest.part(0, 1, len(images)))
            try:
                measured = measure(self._inner, batch, request, scoring)
            except (ModelError, LayerError, TargetError):  # no score to choose by; the layers are there all the same
                listing = replace(request, needs=(), choose=False, everything=True)
                measured = measure(self._inner, batch, listing, scoring)
        chosen = measured.layers[0].label if measured.layers else None
        rows = [replace(row, why=measured.why.get(row.name, row.why)) for row in measured.observer.seen]
        return LayerTable(replace(row, chosen=row.name == chosen) for row in rows)

    def _measure(
        self,
        methods: Sequence[Method],
        layers: tuple[Layer, ...] | None,
        batch: Tensor,
        scoring: Scoring,
        inputs: ModelInputs,
        most: int | None = None,
        memory: dict[Any, Any] | None = None,
        original: Tensor | None = None,
    ) -> Measured:
        """What the passes over one batch give that `methods` need, at `layers` (None: at the one that is chosen).

        `most` is how many evaluations may run together; `memory` is shared by all batches of a call; `original` is what
        the batch is a change of.
        """
        needs = tuple(method.needs for method in methods)
        colours = partial(to_input, self._preprocessing, self._sides)
        request = Request(
            needs, layers or (), layout=self._layout, inputs=inputs, most=most, to_input=colours,
            original=original, memory={} if memory is None else memory,
        )  # fmt: skip
        measured = self._choice.measure(request, batch, scoring)
        self._cautions.check(measured.selected, scoring)
        return measured

    def _noise(self) -> np.ndarray | Tensor:
        """A picture of noise for the transform; where none is known, a tensor as the first convolution takes it."""
        generator = np.random.default_rng(0)
        if not self._preprocessing.assumed:
            return generator.integers(0, 256, (256, 256, 3), dtype=np.uint8)
        first = first_convolution(self._inner)
        shape = (1, first.in_channels if first else 3, *_USUAL[self._sides])
        return torch.from_numpy(generator.random(shape, np.float32))

    def _load(self, images: Images, start: int, stop: int, *, seen: bool = True) -> tuple[Tensor, np.ndarray]:
        """The chunk's batch where the model is and in its precision, and the pictures of it, if they are to be seen."""
        batch, pictures = images.load(start, stop, self._preprocessing, seen=seen)
        return self._placed(batch), pictures

    def _placed(self, batch: Tensor) -> Tensor:
        """The batch where the model is and in its precision."""
        dtype = next((p.dtype for p in self._inner.parameters() if p.is_floating_point()), batch.dtype)
        return batch.to(device_of(self._inner, self._device) or batch.device, dtype)

    @property
    def _about(self) -> About:
        return About(self._names, self._activation)

    def _scoring(self, targets: Sequence[Target], first: int, each: int = 1) -> Scoring:
        return Scoring(targets, self._output, self._classes, replace(self._about, first=first), each)

    def _embedding(self, rest: ModelInputs, image: Any) -> Tensor:
        """The model's embedding of one image, ``(D,)``."""
        images = gather(image, self._sides)
        if len(images) != 1:
            raise TargetError(f"Similarity(to=...) takes one image or embedding; this is {len(images)} images. "
                              "For several give a list of targets.")  # fmt: skip
        batch, _ = self._load(images, 0, 1, seen=False)
        with torch.no_grad():
            outputs = read_outputs(run(self._inner, batch, rest), 1, self._output, self._classes)
        if outputs.embedding is None:
            raise TargetError(f"Similarity(to=an image) needs {KINDS['embedding']}, and the model gives "
                              f"{KINDS[outputs.kind]}. Explainer(model, output=...) takes others.")  # fmt: skip
        return outputs.embedding[0]
