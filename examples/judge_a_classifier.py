"""Train, judge and explain a classifier: a folder for each of six classes, a residual network, one evaluation."""

from collections import Counter, OrderedDict
from pathlib import Path

import numpy as np
import torch
from matplotlib import pyplot as plt
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from seewhy import Explainer

# A data set as it lies on disk: digits/PART/CLASS/NUMBER.png
digits, random = load_digits(), np.random.default_rng(0)
names = {1: "one", 3: "three", 5: "five", 7: "seven", 8: "eight", 9: "nine"}
for number, (pixels, digit) in enumerate(zip(digits.images, digits.target, strict=True)):
    if digit in names:
        folder = Path("digits", random.choice(["training", "validation", "test"], p=[0.25, 0.25, 0.5]), names[digit])
        folder.mkdir(parents=True, exist_ok=True)
        grey = (np.pad(pixels, 1) / 16 * 255).astype(np.uint8)
        Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number:04}.png")

# Look at it first: how many images has each class, and what do they look like?
data = ImageFolder("digits/training")
counts = Counter(data.targets)
figure, axes = plt.subplots(len(data.classes), 12, figsize=(7.5, 4), layout="constrained", subplot_kw={"yticks": []})
for index, (name, row) in enumerate(zip(data.classes, axes, strict=True)):
    some = random.choice(np.flatnonzero(np.equal(data.targets, index)), len(row), replace=False)
    for ax, number in zip(row, some, strict=True):
        ax.imshow(data[number][0])
        ax.set_xticks([])
    row[0].set_ylabel(f"{name}\n{counts[index]} images", rotation=0, ha="right", va="center", fontsize=9)
figure.savefig("classes.png", dpi=150)
print("training images:", {name: counts[index] for index, name in enumerate(data.classes)})


class Block(nn.Module):
    """A residual block (He 2015)."""

    def __init__(self, channels, width, stride):
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2, self.norm2 = nn.Conv2d(width, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        self.short = nn.Conv2d(channels, width, 1, stride, bias=False) if channels != width else nn.Identity()

    def forward(self, x):  # noqa: D102
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.short(x))


torch.manual_seed(0)
stem = nn.Sequential(nn.Conv2d(1, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 6))
blocks = {"block1": Block(16, 16, 1), "block2": Block(16, 32, 2), "block3": Block(32, 32, 1)}
model = nn.Sequential(OrderedDict(stem=stem, **blocks, head=head))
print(f"{sum(parameter.numel() for parameter in model.parameters()):,} parameters")

# Train on images that are turned and shifted a little; keep the best network; stop when it gets no better.
transform = v2.Compose([v2.Grayscale(), v2.Resize((32, 32)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
augmented = v2.Compose([v2.RandomAffine(10, translate=(0.1, 0.1), scale=(0.9, 1.1)), transform])
training = DataLoader(ImageFolder("digits/training", augmented), batch_size=32, shuffle=True)
validation = DataLoader(ImageFolder("digits/validation", transform), batch_size=64)
optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
best, best_epoch, patience = float("inf"), 0, 5
for epoch in range(40):
    for images, labels in training:
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        losses = [F.cross_entropy(model(images), labels, reduction="sum") for images, labels in validation]
    model.train()
    if (loss := float(sum(losses)) / len(validation.dataset)) < best:
        best, best_epoch = loss, epoch
        torch.save(model.state_dict(), "best.pt")
    if epoch - best_epoch == patience:
        break
print(f"stopped after epoch {epoch}; the best was {best_epoch}, validation loss {best:.3f}")
model.load_state_dict(torch.load("best.pt", weights_only=True))

# Judge it on images that it never saw, with the maps of the predicted classes in the same pass.
explainer = Explainer(model.eval(), transform=transform, class_names=data.classes)
evaluation = explainer.evaluate("digits/test", "grad_cam", batch_size=64)
print(evaluation, f"expected calibration error {evaluation.calibration().ece:.3f}", sep="\n")
print(evaluation.report().round(3))
evaluation.plot_confusion().figure.savefig("confusion.png", dpi=150)

# And look at what it looked at: photo and true class, heat map, overlay and predicted class.
evaluation.panels("sample", k=4)[0, 0].figure.savefig("panels.png", dpi=150)
evaluation.panels("mistakes", k=4)[0, 0].figure.savefig("mistakes.png", dpi=150)
evaluation.save_report("report.html", title="Six digits")
