"""What is it confused by: the most confident mistakes, what argues for the wrong class, what for the right one."""

from collections import OrderedDict
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

from seewhy import Explainer

# Few images to train on, many to test on: digits/PART/CLASS/NUMBER.png
digits = load_digits()
for number, place in enumerate(np.random.default_rng(0).permutation(len(digits.images))):
    folder = Path("digits", "training" if number < 150 else "test", str(digits.target[place]))
    folder.mkdir(parents=True, exist_ok=True)
    grey = (np.pad(digits.images[place], 1) / 16 * 255).astype(np.uint8)
    Image.fromarray(grey).resize((32, 32), Image.Resampling.BICUBIC).save(folder / f"{number:04}.png")

transform = v2.Compose([v2.Grayscale(), v2.Resize((32, 32)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
data = ImageFolder("digits/training", transform)


def block(channels, width, stride):
    return nn.Sequential(nn.Conv2d(channels, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU())


torch.manual_seed(0)
blocks = {"block1": block(1, 16, 2), "block2": block(16, 32, 2), "block3": block(32, 32, 1)}
head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
model = nn.Sequential(OrderedDict(**blocks, head=head))
optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
for _ in range(30):
    for images, labels in DataLoader(data, batch_size=16, shuffle=True):
        optimizer.zero_grad()
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()

explainer = Explainer(model.eval(), transform=transform, class_names=data.classes)
evaluation = explainer.evaluate("digits/test", batch_size=64)
print(evaluation)

# Which classes it mixes up most often, and the mistakes that it is surest of.
mistakes = evaluation.mistakes()
print(mistakes.groupby(["label", "prediction"]).size().nlargest(5).rename("images"), "", sep="\n")
print(mistakes[["path", "label", "prediction", "probability", "label_probability"]].head().to_string(index=False))

# For each of these: the map of the class it was taken for, that of its true class, and the difference.
evaluation.contrast(k=5)[0, 0].figure.savefig("confused_by.png", dpi=150)
