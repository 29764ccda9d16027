"""Digits as a small network sees them: its features by PCA and t-SNE, with those that it gets wrong, and neighbours."""

from collections import OrderedDict

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from seewhy import Explainer, inside

torch.manual_seed(0)
digits = load_digits()
images = F.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, (16, 16), mode="bilinear")
labels = torch.tensor(digits.target)
order = torch.randperm(len(images))
train, held_out = order[:600], order[600:]


def block(channels, width):
    return [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]


features = nn.Sequential(
    *block(1, 16), *block(16, 16), nn.MaxPool2d(2),
    *block(16, 32), *block(32, 32), nn.MaxPool2d(2),
    *block(32, 32), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
)  # fmt: skip
model = nn.Sequential(OrderedDict(features=features, head=nn.Linear(32, 10)))

epochs, batch = 10, 64
optimizer = torch.optim.AdamW(model.parameters())
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, total_steps=epochs * -(-len(train) // batch))
for _ in range(epochs):
    for some in train[torch.randperm(len(train))].split(batch):
        optimizer.zero_grad()
        F.cross_entropy(model(images[some]), labels[some]).backward()
        optimizer.step()
        schedule.step()

transform = v2.Compose([v2.Grayscale(), v2.Resize((16, 16)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])
explainer = Explainer(model.eval(), transform=transform, class_names=[str(digit) for digit in range(10)])

# One pass over the images, what the layer `head` reads, and a few coordinates of it.
pca = inside.embed(explainer, images[held_out], labels=labels[held_out], components=5)
shares = ", ".join(f"{share:.1%}" for share in pca.explained_variance_ratio)
print(f"{pca}\n  shares of the variance: {shares}\n  right: {pca.correct.mean():.1%}")
pca.save("digits_pca.png")

tsne = pca.reduced("tsne")
print(f"{tsne}\n  nearest point of the same digit: {tsne.nearest_neighbour_accuracy():.1%}")
tsne.save("digits_tsne.png")

wrong = int((~pca.correct).argmax())
print(f"image {wrong}, a {pca.labels[wrong]} taken for a {pca.predictions[wrong]}, lies next to:")
for i, distance in zip(*pca.neighbours(wrong), strict=True):
    print(f"  image {i}, a {pca.labels[i]}, at {distance:.2f}")
