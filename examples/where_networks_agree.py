"""Where two networks agree: two small networks for digits that differ in their first random weights only, by CKA."""

from itertools import pairwise

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn import functional as F
from torchvision.transforms import v2

from seewhy import Explainer, inside

digits = load_digits()
images = F.interpolate(torch.tensor(digits.images, dtype=torch.float32)[:, None] / 16, (16, 16), mode="bilinear")
labels = torch.tensor(digits.target)
transform = v2.Compose([v2.Grayscale(), v2.Resize((16, 16)), v2.ToImage(), v2.ToDtype(torch.float32, scale=True)])


def trained(seed, epochs):
    """A network and its explainer."""
    torch.manual_seed(seed)
    widths = [1, 16, 16, 32, 32]
    layers = []
    for i, (channels, width) in enumerate(pairwise(widths)):
        pool = [nn.MaxPool2d(2)] if i % 2 else []
        layers += [nn.Conv2d(channels, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), *pool]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    for _ in range(epochs):
        for some in torch.randperm(1200).split(64):
            optimizer.zero_grad()
            F.cross_entropy(model(images[some]), labels[some]).backward()
            optimizer.step()
    right = (model.eval()(images[1200:]).argmax(1) == labels[1200:]).float().mean()
    print(f"seed {seed}, {epochs} epochs: {right:.1%} of the held-out digits right")
    return Explainer(model, transform=transform)


one, two, untrained = trained(0, 4), trained(1, 4), trained(2, 0)
convolutions = ["0", "3", "7", "10"]  # the layers' names; explainer.layers() lists them
how = {"layer": convolutions, "other_layer": convolutions, "batch_size": 100}
agreement = inside.cka(one, images[1200:], other=two, **how)
agreement.save("two_networks.png")
print("two trained networks, layer by layer: ", agreement.values.diagonal().round(2))
random = inside.cka(one, images[1200:], other=untrained, **how)
print("one of them and an untrained one:     ", random.values.diagonal().round(2))
